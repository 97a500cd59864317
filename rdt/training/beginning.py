"""What a training begins with: fresh weights, or those of a checkpoint, perhaps with LoRA.

A checkpoint is loaded through :mod:`rdt.checkpoint`, so nothing of it can be missing
unnoticed. One that does not see by itself gets SigLIP, frozen, and instructions that were
encoded beforehand: T5 beside the network does not fit on a GPU (RDTL-T008).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from launcher.core.errors import RefusedError, UsageError
from rdt import checkpoint, lora
from rdt.data.statistics import Statistics
from rdt.encoders import siglip
from rdt.encoders.embeddings import Embeddings
from rdt.encoders.words import Words
from rdt.model.policy_network import PICTURE_HISTORY, PolicyNetwork, build, config_from_run
from rdt.model.trainable import FineTuned, Trainable
from rdt.policy import slots
from rdt.spec.card import SIGLIP, T5, require_contract
from rdt.spec.contract import Contract, require_same
from rdt.training.shown import Shown

Row = tuple[str, str]


@dataclass(frozen=True)
class Beginning:
    """``config`` is the content of config.json; ``encoders`` and ``camera_size`` as in a card;
    ``rows`` of the first-step gate; ``frozen``: what pictures go through that is not trained."""

    module: Trainable
    config: dict[str, Any]
    shown: Shown
    encoders: dict[str, str]
    camera_size: int
    adapted: lora.Adapted | None
    rows: list[Row]
    frozen: torch.nn.Module | None = None


def begin(
    config: dict[str, Any], described: Statistics, contract: Contract, device: torch.device
) -> Beginning:
    """The network of a run before its first step, the same on every rank.

    Raises what :func:`rdt.checkpoint.load`, :func:`rdt.policy.slots.of` and
    :func:`rdt.lora.add` raise, RefusedError RDTL-T012 for a checkpoint of another
    contract, UsageError RDTL-T008 without embeddings for a network that needs them.
    """
    torch.manual_seed(config["seed"])  # fresh weights and factors
    train = config["train"]
    if train["checkpoint"] is None:
        made = _fresh(train, described, contract)
    else:
        made = _loaded(train, described, contract, device)
    made.module.checkpointing = train["gradient_checkpointing"]
    adapted, rows = None, made.rows
    if train["lora"] is not None:
        adapted = lora.add(made.module, lora.Lora(**train["lora"]))
        rows = rows + [("LoRA", line) for line in adapted.lines()]
    made.module.to(device)
    return replace(made, adapted=adapted, rows=rows)


def _fresh(train: dict[str, Any], described: Statistics, contract: Contract) -> Beginning:
    network = config_from_run(train["model"], described.camera_size, contract)
    module = build(network, contract, "train.model")
    rows = [("weights before it", f"fresh, {_count(module)} parameters")]
    return _own(module, network, described.camera_size, contract, rows)


def _own(
    module: PolicyNetwork, config: dict[str, Any], size: int, contract: Contract, rows: list[Row]
) -> Beginning:
    shown = Shown(PICTURE_HISTORY, len(contract.cameras), 0, module.config.pred_horizon, Words())
    encoders = {"vision": "trained", "language": "word-hash"}
    return Beginning(module, config, shown, encoders, size, None, rows)


def _loaded(
    train: dict[str, Any], described: Statistics, contract: Contract, device: torch.device
) -> Beginning:
    loaded = checkpoint.load(train["checkpoint"])
    network = loaded.network
    rows = [("weights before it", f"all {_count(network)} parameters loaded")]
    rows += [("", line) for line in loaded.lines()]
    if loaded.card is not None:
        found = require_same(loaded.card.contract, train["checkpoint"])
        require_contract(found.name, contract.name, train["checkpoint"])
    if isinstance(network, PolicyNetwork):
        size = network.vision.config.image_size
        _require_size(size, described.camera_size, train["checkpoint"])
        data = {**network.config.to_dict(), "vision": network.vision.config.to_dict()}
        return _own(network.requires_grad_(True), data, size, contract, rows)
    if train["language"] is None:
        raise _no_embeddings(train["checkpoint"])
    dtype = torch.bfloat16 if train["dtype"] == "bf16" else torch.float32
    encoder = siglip.load(train["vision"] or siglip.PUBLIC, dtype, device)
    grid = slots.of(network.config, contract, 0)
    language = Embeddings(Path(train["language"]), network.config.lang_token_dim)
    horizon = network.config.pred_horizon
    shown = Shown(grid.moments, len(grid.cameras), encoder.size, horizon, language)
    names = {"vision": SIGLIP, "language": T5}
    module = FineTuned(network, encoder)
    # SigLIP resizes, so any size would pass; pictures of another one look different all the same.
    size = described.camera_size
    data = network.config.to_dict()
    return Beginning(module, data, shown, names, size, None, rows, encoder.model)


def _require_size(network: int, found: int, source: str) -> None:
    """Raise RefusedError RDTL-T012 when pictures have not the size that a network sees."""
    if network != found:
        raise RefusedError(
            "RDTL-T012",
            "the pictures of the data have another size than those of the checkpoint",
            where=f"{source}: {network} pixels, the data: {found}",
            why="the network has a position for each patch of that size",
            fix="name data whose pictures are alike, or begin without a checkpoint",
        )


def _no_embeddings(source: str) -> UsageError:
    return UsageError(
        "RDTL-T008",
        "this network needs instructions that were encoded beforehand",
        where=f"train.language is unset; {source} has no language encoder of its own",
        why="T5 beside the network would not fit on the GPU",
        fix="rdtl data embed, then train.language=FOLDER; for LIBERO see "
        "configs/assets/libero-t5-embeddings.yaml",
    )


def _count(module: torch.nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()):,}"
