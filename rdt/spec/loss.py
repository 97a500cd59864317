"""Which of the 128 slots the training loss looks at, and how closely."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from launcher.core.errors import UsageError
from rdt.spec.contract import UNIFIED_SIZE, Contract


def slot_weights(contract: Contract, kind: str, weights: Mapping[str, float]) -> list[float]:
    """128 shares that add up to 1: the loss is the squared error weighted by them.

    "valid": the slots of the contract's mask. Those that only a state fills have 0 as their
    target: a network that was trained before says something else there, and would be fed
    with it while it samples. "all": every slot, as the reference has it; nine tenths of
    its loss are then zeros that are learned at once. ``weights`` of the contract's parts
    stand for 1. Raises UsageError RDTL-T063 for a part that the contract lacks.
    """
    counted = range(UNIFIED_SIZE) if kind == "all" else contract.mask_slots
    shares = [float(slot in counted) for slot in range(UNIFIED_SIZE)]
    parts = {part.name: part for part in (*contract.state, *contract.action)}
    for name, weight in weights.items():
        if name not in parts:
            raise _unknown(name, list(parts), contract)
        for slot in parts[name].slots:
            shares[slot] *= weight
    whole = sum(shares)
    if whole <= 0:
        raise _unknown("with a weight above 0", list(parts), contract)
    return [share / whole for share in shares]


def _unknown(name: str, names: list[str], contract: Contract) -> UsageError:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return UsageError(
        "RDTL-T063",
        f"there is no group of slots {name}" + (f"; did you mean {near[0]}?" if near else ""),
        where=f"train.loss_weights; contract {contract.name} has {'; '.join(names)}",
        why="a weight that belongs to nothing would silently do nothing",
        fix="name a group as the contract does, in quotes",
    )
