"""DeepSpeed's configuration: ours, from the ``train`` section, and what a user adds to it.

A user's own JSON may add whatever we do not set (communication buckets, offloading of
weights, profilers). What we set follows from the recipe, which the record, the card and
the checkpoints name; a JSON that says otherwise is refused instead of silently winning
or silently losing.
"""

from __future__ import annotations

from typing import Any

from launcher.core.errors import UsageError

BETAS = (0.9, 0.999)
EPSILON = 1e-8

TAKEN = {
    "scheduler": "the learning rate of every step comes from train.learning_rate and its schedule",
    "elasticity": "the effective batch is fixed by the recipe",
    "amp": "the precision is train.dtype",
}
"""Sections that a user's JSON must not have, and why."""


def config(train: dict[str, Any]) -> dict[str, Any]:
    """The whole configuration of the engine.

    Raises UsageError RDTL-T051 for a user's JSON at odds with the ``train`` section,
    RDTL-T052 for settings that do not go together.
    """
    _require_possible(train)
    return merged(_ours(train), train["deepspeed"] or {})


def _ours(train: dict[str, Any]) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": train["zero_stage"]}
    if train["offload"]:
        zero["offload_optimizer"] = {"device": "cpu"}
    made: dict[str, Any] = {
        "train_batch_size": train["effective_batch"],
        "train_micro_batch_size_per_gpu": train["micro_batch"],
        "gradient_accumulation_steps": train["accumulation"],
        # Here and nowhere else: a clip outside DeepSpeed silently does nothing.
        "gradient_clipping": train["gradient_clipping"],
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # that one is compiled at run time
        "fp16": {"enabled": False},
        "bf16": {"enabled": train["dtype"] == "bf16"},
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": train["learning_rate"],
                "betas": list(BETAS),
                "eps": EPSILON,
                "weight_decay": train["weight_decay"],
                "torch_adam": True,  # the fused one is compiled at run time
            },
        },
    }
    if train["dtype"] == "bf16":
        # Sums of micro steps in bf16 would lose what accumulation is to give.
        made["data_types"] = {"grad_accum_dtype": "fp32"}
    return made


def merged(ours: dict[str, Any], theirs: dict[str, Any], path: str = "") -> dict[str, Any]:
    """``ours`` with what ``theirs`` adds; "auto" in theirs stands for our value.

    Raises UsageError RDTL-T051 where both say something and it is not the same.
    """
    made = dict(ours)
    for key, value in theirs.items():
        name = f"{path}{key}"
        if name in TAKEN:
            raise _contradiction(name, value, "nothing", TAKEN[name])
        if isinstance(value, dict) and isinstance(ours.get(key, {}), dict):
            made[key] = merged(ours.get(key, {}), value, f"{name}.")
        elif key not in ours:
            made[key] = value
        elif value not in ("auto", ours[key]):
            raise _contradiction(name, value, ours[key], "the recipe and its record say otherwise")
    return made


def _contradiction(name: str, theirs: object, ours: object, why: str) -> UsageError:
    return UsageError(
        "RDTL-T051",
        "the DeepSpeed configuration contradicts the recipe",
        where=f"train.deepspeed: {name} = {theirs!r}, the train section gives {ours!r}",
        why=why,
        fix=f'remove {name} from the DeepSpeed JSON (or write "auto"), or change the train section',
    )


def _require_possible(train: dict[str, Any]) -> None:
    if train["zero_stage"] > 0:
        return
    for key, value in (("offload", train["offload"]), ("dtype", train["dtype"] == "bf16")):
        if value:
            raise UsageError(
                "RDTL-T052",
                f"train.{key} needs ZeRO stage 1, 2 or 3",
                where=f"train.zero_stage = 0, train.{key} = {train[key]!r}",
                why="without ZeRO there are no float32 master weights apart from the weights",
                fix="set train.zero_stage to 1: the same numbers, the optimizer state divided",
            )
