"""Freeing space: what a run that is over no longer needs.

Checkpoints go only when the run is done and its policy is exported: until then they are what it
continues from, and those of a program of one's own are its result.
Half-written files and caches go as soon as nothing of the run is alive.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from launcher import status
from launcher.core.runs import RunDir
from launcher.judges import launcher_of
from launcher.status import RunStatus
from rdt.spec import card as cards

REMOVING = ".removing"


@dataclass(frozen=True)
class Waste:
    """Something that may go, its size in bytes and why it is not needed."""

    path: Path
    size: int
    why: str


@dataclass(frozen=True)
class Kept:
    """A run that is left alone, and why."""

    run: RunDir
    why: str


def find(runs: list[RunDir]) -> tuple[list[Waste], list[Kept]]:
    """What may be removed from ``runs``, and the runs of which nothing may be."""
    waste: list[Waste] = []
    kept: list[Kept] = []
    for one in status.of_all(runs, fresh=True):
        if one.run.root.stat().st_uid != os.geteuid():
            kept.append(Kept(one.run, "it belongs to another user"))
        elif one.live or launcher_of(one.run) is not None:
            kept.append(Kept(one.run, "it is alive"))
        else:
            waste += _of_run(one)
    return waste, kept


def _of_run(one: RunStatus) -> list[Waste]:
    root = one.run.root
    found = [(path, "half-written when its writer died") for path in root.rglob(".*.part")]
    found += [(path, "its removal was interrupted") for path in root.rglob(f".*{REMOVING}")]
    found.append((root / "cache", "compiled again when needed"))
    if one.word == "done":
        if (one.run.policy / cards.FILE).is_file():  # whole, because it is renamed last
            for pattern in ("step_*", "damaged_step_*"):
                steps = sorted(one.run.checkpoints.glob(pattern))
                found += [(path, "the run is done and its policy is exported") for path in steps]
        found += [
            (root / name, "scheduler's own files of a run that is done")
            for name in ("local", "slurm")
        ]
    top = [(p, why) for p, why in found if not any(q in p.parents for q, _ in found)]
    return [Waste(path, _size(path), why) for path, why in top if path.exists()]


def remove(waste: Waste) -> None:
    """Remove it; a directory loses its name first, so that half of it is never taken for whole."""
    if waste.path.is_dir() and not waste.path.is_symlink():
        doomed = waste.path
        if not doomed.name.endswith(REMOVING):
            doomed = waste.path.with_name(f".{waste.path.name}{REMOVING}")
            waste.path.rename(doomed)
        shutil.rmtree(doomed)
    else:
        waste.path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size if path.exists() else 0
    return sum(p.lstat().st_size for p in path.rglob("*") if not p.is_dir() or p.is_symlink())
