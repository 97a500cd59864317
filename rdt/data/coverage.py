"""How much of the data an epoch of training shows, by the order in which samples are taken.

Beside our two orders stands the loader that many fine-tunes use, which draws an episode
and then a step from all but its last chunk: how an episode ends is never shown, for any
number of draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rdt.data.order import KINDS, Order

Ints = NDArray[np.int64]


class Coverage(NamedTuple):
    """Of the steps in ``window``: the shares seen in the epochs and never seen however long
    one trains, and the fewest and most times that one was seen."""

    order: str
    window: str
    seen: float
    never: float
    fewest: int
    most: int


def tail_dropping(lengths: Ints, horizon: int, draws: int, seed: int) -> Ints:
    """Flat steps (draws,) of the loader with ``randint(0, length - horizon)``.

    It fails on episodes that are not longer than a chunk; here they are left out.
    """
    random = np.random.default_rng(seed)
    starts = np.cumsum(lengths) - lengths
    long = np.flatnonzero(lengths > horizon)
    if not len(long):
        return np.zeros(0, np.int64)
    episodes = random.choice(long, draws)
    return starts[episodes] + random.integers(0, lengths[episodes] - horizon)


def table(
    lengths: Ints,
    horizon: int,
    seed: int,
    epochs: int = 1,
    windows: Mapping[str, NDArray[np.bool_]] | None = None,
) -> list[Coverage]:
    """Coverage of episodes of ``lengths`` (n,) in as many draws as there are steps, per epoch.

    ``windows``: names of (steps,) bool, e.g. around a grasp; all steps without.
    """
    steps = int(lengths.sum())
    positions = np.arange(epochs * steps)
    taken = {
        kind: Order((steps,), seed, kind=kind).at(positions) for kind in ("enumerate", "random")
    }
    taken["tail-dropping"] = tail_dropping(lengths, horizon, len(positions), seed)
    behind = np.arange(steps) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    dropped = behind >= np.repeat(np.maximum(lengths - horizon, 0), lengths)
    return [
        _row(order, name, np.bincount(ids, minlength=steps)[window], dropped[window])
        for name, window in (windows or {"all": np.ones(steps, np.bool_)}).items()
        for order, ids in taken.items()
    ]


def learned(ends: Ints, sampled: Ints, horizon: int) -> int:
    """Of the steps up to ``ends`` (episodes,), those that are an action of some sample's chunk."""
    edges = np.zeros(int(ends[-1]) + 1, np.int64)
    beyond = np.minimum(sampled + horizon, ends[np.searchsorted(ends, sampled, "right")])
    np.add.at(edges, sampled, 1)
    np.add.at(edges, beyond, -1)
    return int((edges.cumsum() > 0).sum())


def of_epoch(order: Order, lengths: Ints, horizon: int) -> list[Coverage]:
    """One epoch of a run's samples in both orders, beside the loader that drops the tails.

    Sets and weights are those of ``order``. Of the tail-dropping loader the shares are of the
    control steps of episodes of ``lengths`` (n,), whether they have a picture or not.
    """
    samples, positions = sum(order.sizes), np.arange(order.epoch)
    dropped = np.zeros(samples, np.bool_)
    rows = []
    for kind in KINDS:
        ids = replace(order, kind=kind).at(positions)
        rows.append(_row(kind, "all", np.bincount(ids, minlength=samples), dropped))
    return [*rows, table(lengths, horizon, order.seed)[-1]]


def _row(order: str, window: str, counts: Ints, dropped: NDArray[np.bool_]) -> Coverage:
    never = float(dropped.mean()) if order == "tail-dropping" else 0.0
    return Coverage(
        order, window, float((counts > 0).mean()), never, int(counts.min()), int(counts.max())
    )
