"""Which demonstrations are kept out of training, to measure what was not learned by heart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RefusedError
from rdt.data.order import derived_key, permute
from rdt.data.recording import Episode

HELD_OUT = 4
"""Part of the key under which they are drawn."""
Flags = NDArray[np.bool_]


def choose(sets: Sequence[Sequence[Episode]], held_out: float, seed: int) -> list[Flags]:
    """Flags (episodes,) of each data set, True where an episode is held out.

    ``sets``: the episodes of each; what several of them name is held out of all. ``held_out``:
    their number, or below 1 their share. A function of the seed, so every rank and resume agrees.
    Raises RefusedError RDTL-T064 when nothing would be held out, or a set would have nothing to
    learn from.
    """
    numbers, total = _numbered(sets)
    count = round(held_out * total) if held_out < 1 else int(held_out)
    flags = np.zeros(total, np.bool_)
    if 0 < count < total:
        flags[permute(np.arange(count), total, derived_key(seed, HELD_OUT))] = True
    found = [flags[own] for own in numbers]
    if not 0 < count < total or any(held.all() for held in found):
        raise RefusedError(
            "RDTL-T064",
            f"{count} demonstrations cannot be held out",
            where=f"dataset.held_out {held_out:g}; demonstrations by data set: "
            f"{', '.join(str(len(episodes)) for episodes in sets)}",
            why="there must be something to validate on, and something to learn in every set",
            fix="hold out another number, or name larger data sets; a run that has begun keeps its "
            "configuration: under another name (--name OTHER)",
        )
    return found


def _numbered(sets: Sequence[Sequence[Episode]]) -> tuple[list[NDArray[np.int64]], int]:
    """Numbers (episodes,) for each set, one for each demonstration wherever it is named, and how
    many there are; links are followed."""
    real = {file: file.resolve() for file in {e.file for episodes in sets for e in episodes}}
    seen: dict[tuple[Path, str], int] = {}
    numbers = [
        np.array([seen.setdefault((real[e.file], e.name), len(seen)) for e in of], np.int64)
        for of in sets
    ]
    return numbers, len(seen)
