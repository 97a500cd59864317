"""Which way up the pictures of a data set lie, told from the pictures.

The first picture of an episode shows one of LIBERO's scenes before the arm has moved. It is
compared with small grey portraits of the scenes (``portraits.npz``, drawn by
``python -m rdt.sim.portraits``) in each of the eight ways in which a square can lie. Nearest is
the right one, unless the picture is like none of them or like two ways alike: then nothing is
said.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rdt.data.detect import Verdict
from rdt.data.store import EpisodeStore

WHAT = "orientation of the pictures"
PORTRAITS = Path(__file__).with_name("portraits.npz")
CAMERA = "agentview"
SIDE = 32
EPISODES = 5
CERTAIN = ((0.92, 0.04), (0.8, 0.2))
"""Correlation with a portrait, and by how much it must beat that of every other way, to tell
anything: either pair. Demonstrations reach 0.88 to 0.99 with their scene, its mirror image is
0.05 behind at least; a scene without a portrait reaches 0.91 (0.01 ahead) or 0.87 (0.11 ahead)
with the mirror image of another."""
Pictures = NDArray[np.float64]

WAYS: dict[str, Callable[[Pictures], Pictures]] = {
    "raw": lambda p: p,
    "180": lambda p: p[:, ::-1, ::-1],
    "upright": lambda p: p[:, ::-1],
    "raw, mirrored": lambda p: p[:, :, ::-1],
    "on its left side": lambda p: np.rot90(p, 1, (1, 2)),
    "on its right side": lambda p: np.rot90(p, 3, (1, 2)),
    "on its left side, mirrored": lambda p: np.rot90(p, 1, (1, 2))[:, ::-1],
    "on its right side, mirrored": lambda p: np.rot90(p, 3, (1, 2))[:, ::-1],
}
"""How a picture lies, from how the simulator renders it: bottom row first."""


def shrunk(pictures: NDArray[np.uint8]) -> Pictures:
    """Pictures (n, S, S, 3), S of at least SIDE, in grey as (n, SIDE, SIDE)."""
    S = pictures.shape[1]
    cuts = np.arange(SIDE) * S // SIDE
    grey = pictures.mean(axis=3, dtype=np.float64)
    sums = np.add.reduceat(np.add.reduceat(grey, cuts, axis=1), cuts, axis=2)
    sizes = np.diff([*cuts, S])
    return np.asarray(sums / np.outer(sizes, sizes))


def standard(pictures: Pictures) -> Pictures:
    """Pictures (n, SIDE, SIDE) as rows of mean 0 and length 1, whose products are correlations."""
    rows = pictures.reshape(len(pictures), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9))


@functools.cache
def portraits() -> Pictures:
    """(m, SIDE, SIDE), raw."""
    with np.load(PORTRAITS) as stored:
        return np.stack([stored[name] for name in stored.files]).astype(np.float64)


def likeness(pictures: Pictures, scenes: Pictures) -> dict[str, float]:
    """By way: how like small ``pictures`` are to the nearest of ``scenes`` that lies so, meanwhile
    over the pictures."""
    rows = standard(pictures)
    return {
        way: float((rows @ standard(lay(scenes)).T).max(axis=1).mean()) for way, lay in WAYS.items()
    }


def told(by_way: dict[str, float]) -> str:
    """The way in which the pictures certainly lie, or "unclear"."""
    best, second = sorted(by_way, key=lambda way: -by_way[way])[:2]
    ahead = by_way[best] - by_way[second]
    clear = any(by_way[best] >= alike and ahead >= least for alike, least in CERTAIN)
    return best if clear else "unclear"


def verdict(store: EpisodeStore) -> Verdict:
    """What is declared and what the first pictures of some episodes say.

    Raises RdtlError for pictures that cannot be read.
    """
    if CAMERA not in store.cameras or store.picture_size < SIDE:
        why = f"no pictures of {CAMERA} with {SIDE} pixels"
        return Verdict(WHAT, store.rotation, "unclear", why)
    steps = _first(store)
    if not len(steps):
        return Verdict(WHAT, store.rotation, "unclear", "no episode has a picture of its own")
    S = store.picture_size
    pictures = np.empty((len(steps), S, S, 3), np.uint8)
    store.frames(CAMERA, steps, pictures)
    by_way = likeness(shrunk(pictures), portraits())
    nearest = sorted(by_way, key=lambda way: -by_way[way])[:3]
    shown = ", ".join(f"{way} {by_way[way]:.2f}" for way in nearest)
    evidence = f"the first pictures of {len(steps)} episodes are like LIBERO's scenes: {shown}"
    return Verdict(WHAT, store.rotation, told(by_way), evidence)


def _first(store: EpisodeStore) -> NDArray[np.int64]:
    """The first step with a picture of its own, of a few episodes evenly over the set."""
    first, beyond = np.searchsorted(store.sampled, [store.starts, store.ends])
    with_one = first[beyond > first]
    chosen = np.linspace(0, len(with_one) - 1, min(EPISODES, len(with_one))).round().astype(int)
    return store.sampled[with_one[chosen]]
