"""The arithmetic of a training recipe: batch sizes, length, warm-up, and what is worth a word.

One home for the launcher, which refuses before anything starts, and for the job, which
knows the real number of ranks and samples.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from launcher.core.checks import Finding
from launcher.core.errors import UsageError

EFFECTIVE_BATCH, MICRO_BATCH, STEPS, SEED = 16, 8, 2400, 7
"""What holds where a configuration says nothing."""
BOOKKEEPING = (
    *("log_every", "keep_checkpoints", "keep_every", "keep_best", "checkpoint_every"),
    *("wandb", "wandb_project", "wandb_entity", "validate_every", "validation_batches"),
    *("stall_minutes", "first_loss", "memory_gb"),
    *("nodes", "ranks_per_node", "micro_batch", "accumulation"),
    *("zero_stage", "offload", "deepspeed"),
)
"""Settings that change neither weights nor loss but by rounding: what is kept and said, and on
how many ranks the same effective batch is computed. All others stay when a run is continued."""
ROUNDS = ("validate_every", "validation_batches")
"""Bookkeeping, unless early stopping decides by them where training ends."""
WARMUP_SHARES = (0.005, 0.1)
SMALL_BATCH = 128


class Sizes(NamedTuple):
    """Samples per rank and micro step, micro steps per optimizer step, and their product
    with the number of ranks."""

    micro: int
    accumulation: int
    effective: int


def sizes(micro: int | None, accumulation: int | None, effective: int | None, ranks: int) -> Sizes:
    """All three sizes; what is None is derived from the others.

    The effective batch decides what is learned, so it is what stays when nothing else says
    so: another number of ranks gives another accumulation. Raises UsageError RDTL-T060
    when no whole numbers fit.
    """
    given = effective is not None
    if effective is None:
        both = micro is not None and accumulation is not None
        effective = micro * accumulation * ranks if both else EFFECTIVE_BATCH  # type: ignore
    made = _divided(micro, accumulation, effective, ranks)
    if made is None or made.micro * made.accumulation * ranks != effective:
        raise _contradiction(micro, accumulation, effective, ranks, given)
    return made


def _divided(
    micro: int | None, accumulation: int | None, effective: int, ranks: int
) -> Sizes | None:
    share = effective // ranks
    if not share or (micro or 0) > share or (accumulation or 0) > share:
        return None
    if micro is None:
        wanted = share // accumulation if accumulation else MICRO_BATCH
        micro = max(size for size in range(1, min(wanted, share) + 1) if share % size == 0)
    return Sizes(micro, accumulation or share // micro, effective)


def _contradiction(
    micro: int | None, accumulation: int | None, effective: int, ranks: int, given: bool
) -> UsageError:
    known = f"{micro or 'any'} x {accumulation or 'any'} x {ranks}"
    said = f" = {micro * accumulation * ranks}" if micro and accumulation else ""
    return UsageError(
        "RDTL-T060",
        f"the batch numbers contradict each other: {known}{said} is not {effective}",
        where=f"train.micro_batch {micro or 'unset'}, train.accumulation "
        f"{accumulation or 'unset'}, {ranks} ranks, train.effective_batch "
        f"{effective if given else f'unset, which means {effective}'}",
        why="learning rate and number of steps are chosen for one effective batch, "
        "micro batch x accumulation x ranks",
        fix="give two of the three and leave the third out, or another number of ranks",
    )


def require_length(train: dict[str, Any]) -> None:
    """Refuse two lengths at once.

    Raises UsageError RDTL-T061 for epochs beside steps or minutes, RDTL-T062 for a warm-up
    that is longer than the run.
    """
    others = [key for key in ("steps", "minutes") if train[key] is not None]
    if train["epochs"] is not None and others:
        raise UsageError(
            "RDTL-T061",
            f"the length of the training is given twice, in epochs and in {others[0]}",
            where=f"train.epochs {train['epochs']}, train.{others[0]} {train[others[0]]}",
            why="one of them would silently do nothing",
            fix="leave one of them out",
        )
    if train["minutes"] is None and train["steps"] is not None:
        require_warmup(train["warmup_steps"], train["steps"])


def require_warmup(warmup: int, steps: int) -> None:
    """Raise UsageError RDTL-T062 unless the warm-up ends before the run of ``steps`` does."""
    if warmup <= steps:
        return
    raise UsageError(
        "RDTL-T062",
        f"the warm-up is longer than the training: {warmup} of {steps} optimizer steps",
        where=f"train.warmup_steps {warmup}",
        why="the learning rate would never reach train.learning_rate",
        fix=f"set train.warmup_steps to about {max(1, steps // 20)}, or train for longer; a run "
        "that has begun keeps its configuration: under another name (--name OTHER)",
    )


def require_base(train: dict[str, Any]) -> None:
    """Refuse factors beside weights that nobody has trained (UsageError RDTL-T069)."""
    if train["lora"] is None or train["checkpoint"] is not None:
        return
    raise UsageError(
        "RDTL-T069",
        "LoRA needs a checkpoint to begin with",
        where="train.lora is set, train.checkpoint is not",
        why="it freezes the weights, and fresh ones are random",
        fix="set train.checkpoint, or leave train.lora out",
    )


def require_validation(train: dict[str, Any], dataset: dict[str, Any]) -> None:
    """Refuse what needs a validation loss that nobody would measure (UsageError RDTL-T065)."""
    wants = [key for key in ("early_stopping", "keep_best") if train[key]]
    wants = [key for key in wants if train[key] != "success"]
    every = train["validate_every"]
    fix = (
        "set both, for example dataset.held_out=0.1 and train.validate_every as "
        "train.checkpoint_every; or leave it out"
    )
    if dataset["held_out"] and dataset["buffer"]:
        wants, missing = ["dataset.held_out"], "a data set that is read itself, not a buffer of it"
        fix = "leave dataset.buffer out, or set dataset.held_out=0"
    elif wants and not (dataset["held_out"] and every):
        missing = "dataset.held_out and train.validate_every"
    elif "keep_best" in wants and train["checkpoint_every"] % every:
        wants = ["keep_best"]
        missing = "train.checkpoint_every to be a multiple of train.validate_every"
    else:
        return
    raise UsageError(
        "RDTL-T065",
        f"{wants[0]} needs {missing}",
        where=f"dataset.held_out {dataset['held_out']:g}, dataset.buffer {dataset['buffer']}, "
        f"train.validate_every {every}, train.checkpoint_every {train['checkpoint_every']}",
        why="no validation loss would be measured, or not of every checkpoint, or on samples that "
        "were learned",
        fix=fix,
    )


def deciding(train: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide which weights a training ends in: they stay when it is continued."""
    kept = ROUNDS if train.get("early_stopping") else ()
    return {k: v for k, v in train.items() if k not in BOOKKEEPING or k in kept}


def steps_of(train: dict[str, Any], epoch: int) -> int:
    """Optimizer steps of a run whose epochs have ``epoch`` samples; rounded up."""
    if train["epochs"] is None:
        return int(train["steps"])
    return math.ceil(train["epochs"] * epoch / train["effective_batch"])


def order_findings(dataset: dict[str, Any]) -> list[Finding]:
    """What is allowed and unusual about the order of samples (RDTL-D009)."""
    if dataset["order"] != "random":
        return []
    return [
        Finding(
            "RDTL-D009",
            "warning",
            "samples are drawn with replacement: what is called an epoch shows 63 % of them",
            "dataset.order random",
            "86 % are seen in two epochs, 95 % in three, and some many times",
            "set dataset.order=enumerate: each sample as often as its weight says, in random order",
        )
    ]


def warmup_findings(warmup: int, steps: int | None) -> list[Finding]:
    """What is unusual about a warm-up (RDTL-T005) of so many ``steps``; None: not known yet."""
    low, high = WARMUP_SHARES
    if not steps or not warmup or low <= warmup / steps <= high:
        return []
    return [
        Finding(
            "RDTL-T005",
            "warning",
            f"the warm-up is {warmup / steps:.2%} of the training",
            f"train.warmup_steps {warmup} of {steps} optimizer steps",
            f"{low:.1%} to {high:.0%} is usual",
            "set train.warmup_steps",
        )
    ]


def findings(train: dict[str, Any], steps: int | None) -> list[Finding]:
    """What is allowed and unusual: warm-up (RDTL-T005), batch (RDTL-T006), periods
    (RDTL-T023). ``steps`` None: not known yet."""
    found = warmup_findings(train["warmup_steps"], steps)
    ranks = train["nodes"] * train["ranks_per_node"]
    several = ranks > 1 and (train["device"] == "gpu" or train["checkpoint"] is not None)
    if several and train["effective_batch"] < SMALL_BATCH and train["lora"] is None:
        found.append(
            Finding(
                "RDTL-T006",
                "warning",
                f"the effective batch of {train['effective_batch']} is small for full fine-tuning",
                f"micro {train['micro_batch']} x accumulation {train['accumulation']} x "
                f"{ranks} ranks",
                "published recipes use 128 to 256 over all ranks, not on each",
                "raise train.accumulation, which costs no memory",
            )
        )
    every = train["validate_every"]
    if every and math.gcd(every, train["checkpoint_every"]) == 1:
        found.append(
            Finding(
                "RDTL-T023",
                "warning",
                "some rounds of sampling fall on the step of a checkpoint",
                f"train.validate_every {every}, train.checkpoint_every "
                f"{train['checkpoint_every']}: they share no factor",
                "both need memory at once; a published run has died of it",
                "make one a multiple of the other: rounds are then one step later",
            )
        )
    return found
