"""A sweep: the same episodes for several checkpoints, execution horizons and contracts.

Each combination is a cell, that is an evaluation of its own under its own protocol in
``RUN/cells/NAME``, laid out like a run. All cells together are one array. Launcher, jobs
and report read what a sweep consists of here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rdt.spec import planned
from rdt.spec.record import EpisodeKey

INSIDE = ("policy", "ema", "pytorch_model")
"""Folders below the one that a checkpoint is known by."""


class Cell(NamedTuple):
    """``checkpoint`` and ``contract`` None: the run's own, and the card's."""

    name: str
    checkpoint: str | None
    horizon: int
    contract: str | None


def cells(config: Mapping[str, Any]) -> list[Cell]:
    """All combinations of the section `sweep`, in order; none without that section."""
    sweep = config.get("sweep")
    if not sweep:
        return []
    checkpoints = sweep["checkpoints"] or [config["evaluate"]["checkpoint"]]
    found = []
    for label, checkpoint in zip(labels(checkpoints), checkpoints, strict=True):
        for contract in sweep["contracts"] or [None]:
            for horizon in dict.fromkeys(sweep["horizons"]):
                words = [label, contract, f"h{horizon:02d}"]
                name = "-".join(word for word in words if word)
                found.append(Cell(name, checkpoint, horizon, contract))
    return found


def labels(checkpoints: list[str | None]) -> list[str]:
    """A short name for each checkpoint that is safe in paths: where they differ, with a number."""
    names = [_label(place) for place in checkpoints]
    return [
        name if names.count(name) == 1 else f"{name}.{names[:at].count(name) + 1}"
        for at, name in enumerate(names)
    ]


def _label(place: str | None) -> str:
    if place is None:
        return "own"
    parts = [part for part in Path(place).parts if part not in INSIDE and part != "/"]
    if len(parts) > 1 and Path(parts[-1]).suffix in (".safetensors", ".bin", ".pt"):
        parts = parts[:-1]
    text = parts[-1] if parts else "own"
    return "".join(c if c.isalnum() or c in "._" else "_" for c in text)[:40]


def section(config: Mapping[str, Any], cell: Cell) -> dict[str, Any]:
    """The configuration of the evaluation that a cell is."""
    evaluate = {
        **config["evaluate"],
        "checkpoint": cell.checkpoint,
        "execution_horizon": cell.horizon,
        "contract": cell.contract or config["evaluate"]["contract"],
        "policies": ["rdt"],
        "videos": 0,
    }
    return {**config, "evaluate": evaluate, "sweep": None}


def share(config: Mapping[str, Any], index: int, count: int) -> list[tuple[Cell, list[EpisodeKey]]]:
    """What task ``index`` of ``count`` runs: a stretch of all cells' episodes one after another.

    So a task loads few policies and builds few scenes.
    """
    every = cells(config)
    plans = [planned.from_config(section(config, cell)) for cell in every]
    total = sum(map(len, plans))
    first, last = total * index // count, total * (index + 1) // count
    found, start = [], 0
    for cell, plan in zip(every, plans, strict=True):
        numbers = range(max(first - start, 0), min(last - start, len(plan)))
        if numbers:
            found.append((cell, [plan.key(number) for number in numbers]))
        start += len(plan)
    return found
