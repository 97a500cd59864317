"""Which samples belong to which optimizer step: a function, not a state.

Every window appears exactly once per epoch, in an order shuffled by the seed.
An epoch need not end with a step: positions simply go on, so a resumed run
needs the step number and nothing else, and every rank count sees the same
effective batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, windows: int) -> NDArray[np.int64]:
    """Order of the windows in one epoch, (windows,) int64."""
    return np.random.default_rng([seed, epoch]).permutation(windows)


@dataclass(frozen=True)
class Sampler:
    """``effective_batch`` = micro_batch × accumulation × ranks samples per optimizer step."""

    windows: int
    effective_batch: int
    micro_batch: int
    ranks: int
    seed: int

    def batch(self, step: int) -> NDArray[np.int64]:
        """Window numbers (effective_batch,) of optimizer step ``step`` (from 0), all ranks."""
        positions = np.arange(step * self.effective_batch, (step + 1) * self.effective_batch)
        epochs, places = np.divmod(positions, self.windows)
        ids = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            ids[here] = permutation(self.seed, int(epoch), self.windows)[places[here]]
        return ids

    def micro(self, step: int, micro: int, rank: int) -> NDArray[np.int64]:
        """The part (micro_batch,) of :meth:`batch` that ``rank`` takes in micro step ``micro``."""
        start = (micro * self.ranks + rank) * self.micro_batch
        return self.batch(step)[start : start + self.micro_batch]
