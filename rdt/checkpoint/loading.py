"""From files to a network that is certainly the one of the checkpoint.

The network is built from the checkpoint's own config.json without memory and
takes its tensors a few at a time, cast on the way: there is never a second copy
of the weights, whatever their type in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from launcher.core.checks import Finding
from launcher.core.errors import RdtlError
from rdt.checkpoint import fit, tensors
from rdt.checkpoint.opening import VISION, Checkpoint, Group, Origin, Wanted, open_checkpoint
from rdt.model.config import RdtConfig
from rdt.model.rdt import Rdt, empty
from rdt.spec.card import Card
from rdt.spec.contract import require_same


@dataclass(frozen=True)
class Loaded:
    """A network with the weights of a checkpoint, all of one type, and where they come from."""

    network: Rdt
    config: RdtConfig
    origin: Origin
    card: Card | None
    notes: tuple[Finding, ...]
    groups: tuple[Group, ...]

    def lines(self) -> list[str]:
        """What a log should say: file, copy, type of every part (RDTL-T022), warnings."""
        loaded = str(next(self.network.parameters()).dtype).removeprefix("torch.")
        parts = ", ".join(f"{g.name} {g.parameters:,} {'+'.join(g.dtypes)}" for g in self.groups)
        origin = self.origin
        return [
            f"{origin.weights} weights of {origin.path} ({origin.layout}), config {origin.config}",
            f"stored: {parts}; loaded as {loaded}",
            *(f"{n.severity} {n.code}: {n.what}" for n in self.notes if n.severity != "ok"),
        ]


def load(
    source: str | Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    weights: Wanted = "auto",
) -> Loaded:
    """The network of ``source``: a hub id, or a path in any layout of `rdt.checkpoint.places`.

    All parameters are cast to ``dtype``. A policy that was trained with its own vision
    encoder comes as :class:`rdt.model.policy_network.PolicyNetwork`. Raises what
    :func:`rdt.checkpoint.opening.open_checkpoint` and :func:`rdt.checkpoint.fit.require` do.
    """
    checkpoint = open_checkpoint(source, weights)
    fit.require(checkpoint, fit.compare(checkpoint))
    network = build(checkpoint)
    fill(network, checkpoint, dtype, device)
    return Loaded(
        network,
        checkpoint.config,
        checkpoint.origin,
        checkpoint.card,
        checkpoint.notes,
        tuple(checkpoint.groups()),
    )


def build(checkpoint: Checkpoint) -> Rdt:
    """The network of a checkpoint, to be filled: its weights take no memory yet.

    Raises RdtlError RDTL-T012 for a vision encoder of its own without a card.
    """
    if VISION not in checkpoint.data:
        return empty(checkpoint.config)
    if checkpoint.card is None:
        raise RdtlError(
            "RDTL-T012",
            "a policy with its own vision encoder has no card",
            where=str(checkpoint.origin.path.parent),
            why="only the run that trained it knows its cameras, units and statistics",
            fix="name the policy directory that the run wrote (with card.json)",
        )
    from rdt.model.policy_network import build as build_policy

    where = str(checkpoint.origin.config)
    contract = require_same(checkpoint.card.contract, where)
    return build_policy(checkpoint.data, contract, where)  # small: no need for meta tensors


def fill(
    network: nn.Module, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device | str
) -> None:
    """Give ``network`` the checkpoint's tensors, cast to ``dtype``, on ``device``."""
    state: dict[str, Tensor] = {}
    for window in tensors.windows(checkpoint.origin.path, checkpoint.header):
        for name in list(window):
            state[name] = window.pop(name).to(device, dtype, copy=True).contiguous()
    network.load_state_dict(state, strict=True, assign=True)
    network.to(device)  # constants that are no weights
