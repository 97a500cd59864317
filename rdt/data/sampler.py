"""Which samples belong to which optimizer step and rank: a function, not a state.

An epoch need not end with a step: positions simply go on, so a resumed run needs the
number of samples that were taken and nothing else, and every rank count sees the same
effective batches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rdt.data.order import Order

BLOCK = 4096
"""Positions that are computed at once: one batch at a time would cost as much as reading it."""


@lru_cache(maxsize=16)
def _block(order: Order, size: int, number: int) -> NDArray[np.int64]:
    return order.at(np.arange(number * size, (number + 1) * size))


@dataclass(frozen=True)
class Sampler:
    """``effective_batch`` = micro_batch × accumulation × ranks samples per optimizer step."""

    order: Order
    effective_batch: int
    micro_batch: int
    ranks: int = 1
    stride: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stride", self.micro_batch * self.ranks)

    def batch(self, step: int) -> NDArray[np.int64]:
        """Sample numbers (effective_batch,) of optimizer step ``step`` (from 0), all ranks."""
        return self._at(step * self.effective_batch, self.effective_batch)

    def micro(self, step: int, micro: int, rank: int) -> NDArray[np.int64]:
        """The part (micro_batch,) of :meth:`batch` that ``rank`` takes in micro step ``micro``."""
        return self.part(step * self.effective_batch + micro * self.stride, rank)

    def part(self, taken: int, rank: int) -> NDArray[np.int64]:
        """The next (micro_batch,) samples of ``rank`` when all ranks have ``taken`` so many."""
        return self._at(taken + rank * self.micro_batch, self.micro_batch)

    def _at(self, start: int, count: int) -> NDArray[np.int64]:
        size = min(BLOCK, max(64, self.order.epoch))  # of small sets not many epochs at once
        first, last = start // size, (start + count - 1) // size
        blocks = [_block(self.order, size, number) for number in range(first, last + 1)]
        ids = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        return ids[start - first * size : start - first * size + count]
