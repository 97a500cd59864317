"""LoRA through peft: small trainable factors beside frozen linear layers.

An adapter is worth something on one base only. Its folder names that base by a
digest of the weights and refuses another one. Which layers it sits on is decided
here by whole names, because a name's end is not enough: `attn.proj` also ends
`cross_attn.proj` (RDTL-T030).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from launcher.core.errors import RdtlError, RefusedError, UsageError
from rdt import lora_files
from rdt.checkpoint import tensors
from rdt.checkpoint.saving import publish
from rdt.lora_files import BASE, WEIGHTS
from rdt.model.rdt import Rdt

if TYPE_CHECKING:
    from peft import PeftModel

TARGETS = (
    "attn.qkv", "attn.proj", "cross_attn.q", "cross_attn.kv", "cross_attn.proj",
    "ffn.fc1", "ffn.fc2", "lang_adaptor.0", "lang_adaptor.2", "img_adaptor.0", "img_adaptor.2",
    "state_adaptor.0", "state_adaptor.2", "state_adaptor.4",
)  # fmt: skip
"""Every linear layer but those of the number embedders and of the final layer."""


@dataclass(frozen=True)
class Lora:
    """Sizes of an adapter; ``targets`` are ends of module names, whole components of them."""

    rank: int = 32
    alpha: int = 64
    dropout: float = 0.1
    targets: tuple[str, ...] = TARGETS


@dataclass(frozen=True)
class Adapted:
    """A network with an adapter on it; ``network`` is the one that was given.

    Only the factors train. They are float32 whatever the base is. ``model`` is peft's
    wrapper, ``base`` the digest of the weights below, ``matched`` the names of the
    adapted modules by target, ``layers`` the number of linear layers in all.
    """

    network: Rdt
    model: PeftModel
    base: str
    matched: dict[str, list[str]]
    layers: int

    def lines(self) -> list[str]:
        """What a log should say: how many modules of which kind, and types (RDTL-T022)."""
        trained = [p for p in self.network.parameters() if p.requires_grad]
        frozen = next(p for p in self.network.parameters() if not p.requires_grad)
        return [
            f"LoRA on {sum(map(len, self.matched.values()))} of {self.layers} linear layers: "
            f"{sum(p.numel() for p in trained):,} parameters in {_dtype(trained[0])} "
            f"over a base in {_dtype(frozen)}",
            ", ".join(f"{target} {len(names)}" for target, names in self.matched.items()),
        ]


def add(network: Rdt, settings: Lora | None = None) -> Adapted:
    """Freeze ``network`` and put a fresh adapter on it, which changes nothing yet.

    Raises UsageError RDTL-T030 for a target that no linear layer has, RdtlError RDTL-T030
    for sizes that no adapter has.
    """
    settings = settings or Lora()
    matched = match(network, settings.targets)
    from peft import LoraConfig  # seconds, and only LoRA needs it

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        bias="none",
        target_modules=[name for names in matched.values() for name in names],
    )
    with _unchanged_on_error(network):
        return _wrap(network, config, matched, digest(network))


def match(network: Rdt, targets: tuple[str, ...]) -> dict[str, list[str]]:
    """Full names of the linear layers that each target means."""
    layers = linear_layers(network)
    matched = {t: [name for name in layers if f".{name}".endswith(f".{t}")] for t in targets}
    without = [target for target, names in matched.items() if not names]
    if without or not targets:
        raise UsageError(
            "RDTL-T030",
            f"no linear layer is called {', '.join(without) or 'nothing'}",
            where=f"targets; there are: {', '.join(sorted({_kind(name) for name in layers}))}",
            why="an adapter that sits on fewer layers than meant trains, and stays weak",
            fix="name the layers by whole components, for example attn.qkv",
        )
    return matched


def linear_layers(network: nn.Module) -> list[str]:
    """Names of all linear layers."""
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]


def digest(network: nn.Module) -> str:
    """SHA-256 over names, shapes and weights rounded to bfloat16: the same in every type
    in which a base is loaded, as both forks of it would be told apart by any training."""
    total = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        total.update(f"{name} {list(tensor.shape)}\n".encode())
        rounded = tensor.detach().to("cpu", torch.bfloat16).contiguous()
        total.update(rounded.view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def save(adapted: Adapted, folder: Path) -> None:
    """Write the adapter as peft does, and base.json; whole or not at all.

    Raises UsageError RDTL-U027 when ``folder`` exists.
    """
    publish(folder, lambda inside: write(adapted, inside, _factors(adapted.model)))


def write(adapted: Adapted, folder: Path, factors: Mapping[str, Tensor]) -> None:
    """Fill ``folder`` with ``factors``, by peft's names, and what says where they belong."""
    config = adapted.model.peft_config["default"]
    lora_files.write(folder, factors, config, adapted.base, adapted.matched)


def load(network: Rdt, folder: Path) -> Adapted:
    """Put the adapter in ``folder`` on the base that it was trained on.

    Raises RefusedError RDTL-T037 for another base, RdtlError RDTL-T031 for damaged files,
    RDTL-T020 for tensors that do not fit.
    """
    made_for = lora_files.made_for(folder / BASE)
    base = digest(network)
    if made_for["base"] != base:
        raise RefusedError(
            "RDTL-T037",
            "the adapter was trained on another base",
            where=f"{folder / BASE}: base {made_for['base'][:12]}…, this network is {base[:12]}…",
            why="its factors are corrections of weights that are not here",
            fix="load the checkpoint from which the adapter was trained",
        )
    from peft import set_peft_model_state_dict

    config = lora_files.settings(folder)
    try:
        state = tensors.mapped(folder / WEIGHTS)
    except OSError as error:
        raise lora_files.damaged(folder / WEIGHTS, error) from error
    with _unchanged_on_error(network):
        adapted = _wrap(network, config, made_for["matched"], base)
        lora_files.require_same(folder / WEIGHTS, state, _factors(adapted.model))
        set_peft_model_state_dict(adapted.model, state)
    return adapted


def merge(adapted: Adapted) -> Rdt:
    """Add the factors to the base, for good: a plain network of the base's type again.

    A base in bfloat16 rounds the sum; merge over float32 where that matters.
    """
    adapted.model.merge_and_unload()
    return adapted.network.requires_grad_(True)


@contextmanager
def _unchanged_on_error(network: Rdt) -> Iterator[None]:
    """When the block fails, take off what peft has put on ``network`` so far."""
    layers = {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear)}
    trained = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    attributes = set(vars(network))
    try:
        yield
    except BaseException:
        for name, module in layers.items():
            network.set_submodule(name, module)
        for parameter, flag in trained:
            parameter.requires_grad_(flag)
        for name in set(vars(network)) - attributes:
            delattr(network, name)
        raise


def _wrap(network: Rdt, config: Any, matched: dict[str, list[str]], base: str) -> Adapted:
    from peft import get_peft_model

    config.inference_mode = False  # peft writes True; then nothing would train after a load
    layers, wanted = len(linear_layers(network)), {n for names in matched.values() for n in names}
    try:
        model = get_peft_model(network, config)
    except (ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
        raise RdtlError(
            "RDTL-T030",
            "peft cannot build an adapter of these settings",
            where=f"rank {config.r}, alpha {config.lora_alpha}, dropout {config.lora_dropout}: "
            f"{error}",
            why="rank must be a whole number above 0, dropout a share from 0 to 1",
            fix="correct the settings, or copy the adapter's whole folder again",
        ) from error
    if astray := sorted(wanted ^ set(model.targeted_module_names)):
        raise RdtlError(
            "RDTL-T030",
            "peft put the adapter on other layers than were named",
            where=f"named or adapted, but not both: {', '.join(astray)}",
            why="its rules for names differ between versions",
            fix="install the version of peft in constraints.txt",
        )
    return Adapted(network, model, base, matched, layers)


def _factors(model: PeftModel) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    state: dict[str, Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return state


def _kind(name: str) -> str:
    return name.split(".", 3)[-1] if name.startswith("model.blocks.") else name


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
