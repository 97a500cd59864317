"""Which demonstrations are kept out of training, to measure what was not learned by heart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RefusedError
from rdt.data.order import derived_key, permute

HELD_OUT = 4
"""Part of the key under which they are drawn."""
Flags = NDArray[np.bool_]


def choose(episodes: Sequence[int], held_out: float, seed: int) -> list[Flags]:
    """Flags (episodes,) of each data set, True where an episode is held out.

    ``episodes``: how many each set has. ``held_out``: their number, or below 1 their share.
    A function of the seed, so every rank and resume agrees. Raises RefusedError RDTL-T064
    when nothing would be held out, or a set would have nothing to learn from.
    """
    total = sum(episodes)
    count = round(held_out * total) if held_out < 1 else int(held_out)
    flags = np.zeros(total, np.bool_)
    if 0 < count < total:
        flags[permute(np.arange(count), total, derived_key(seed, HELD_OUT))] = True
    sets = np.split(flags, np.cumsum(episodes)[:-1])
    if not 0 < count < total or any(held.all() for held in sets):
        raise RefusedError(
            "RDTL-T064",
            f"{count} demonstrations cannot be held out",
            where=f"dataset.held_out {held_out:g}; demonstrations by data set: "
            f"{', '.join(map(str, episodes))}",
            why="there must be something to validate on, and something to learn in every set",
            fix="hold out another number, or name larger data sets",
        )
    return sets
