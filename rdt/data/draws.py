"""Random numbers as a function of (seed, position in the stream, purpose).

Nothing is drawn one after the other, so what happens to a sample does not depend on its
batch, on the rank or process that prepares it, or on a resume. Per pixel numbers are made
where the pictures are; torch has no unsigned words, so the same hash is written with signed
ones, whose overflow wraps.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rdt.data.order import MULTIPLIERS, derived_key, mix

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@lru_cache(maxsize=256)
def _keys(seed: int, purpose: int, count: int) -> NDArray[np.uint64]:
    return np.array([derived_key(seed, purpose, n) for n in range(count)], np.uint64)


def words(seed: int, positions: Ints, purpose: int, count: int) -> NDArray[np.uint64]:
    """``count`` words for each of ``positions`` (B,): (B, count) uint64."""
    return mix(positions.astype(np.uint64)[:, None] + _keys(seed, purpose, count), 0)


def uniform(seed: int, positions: Ints, purpose: int, count: int) -> Floats:
    """Numbers in [0, 1), (B, count) float64."""
    return (words(seed, positions, purpose, count) >> np.uint64(11)) * 2.0**-53


def normal(seed: int, positions: Ints, purpose: int, count: int) -> Floats:
    """Standard normal numbers, (B, count) float64."""
    pairs = uniform(seed, positions, purpose, 2 * count)
    radius = np.sqrt(-2 * np.log1p(-pairs[:, :count]))
    return radius * np.cos(2 * np.pi * pairs[:, count:])


def pixels(key: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Numbers inside (0, 1) of ``shape``, float32, the same on every device."""
    count = int(np.prod(shape))
    found = torch.arange(count, dtype=torch.int64, device=device) + _signed(key)
    found = (found ^ _shifted(found, 30)) * _signed(MULTIPLIERS[0])
    found = (found ^ _shifted(found, 27)) * _signed(MULTIPLIERS[1])
    found = found ^ _shifted(found, 31)
    return ((_shifted(found, 41).float() + 0.5) * 2.0**-23).reshape(shape)


def _shifted(values: Tensor, places: int) -> Tensor:
    """A shift to the right that does not copy the sign."""
    return (values >> places) & ((1 << (64 - places)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
