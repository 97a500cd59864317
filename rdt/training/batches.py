"""Training batches as a function of (seed, step, micro step, rank).

No random number generator lives longer than one batch: a resumed run draws the
same noise, the same shifts and the same samples without having saved anything.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rdt.data import unified
from rdt.data.demonstrations import Demonstrations
from rdt.data.order import Order
from rdt.data.sampler import Sampler
from rdt.data.statistics import Statistics
from rdt.diffusion import TRAIN_STEPS
from rdt.encoders import language_tokens
from rdt.model.policy_network import Batch
from rdt.spec.contract import UNIFIED_SIZE


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from the parts; neighbouring parts give unrelated seeds."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def shift_pictures(
    pictures: NDArray[np.uint8], pixels: int, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Shift each picture of (n, cameras, S, S, 3) by up to ``pixels`` each way, edges repeated."""
    n, cameras, S = pictures.shape[:3]
    shifts = random.integers(-pixels, pixels, size=(n, cameras, 2), endpoint=True)
    out = np.empty_like(pictures)
    for index in np.ndindex(n, cameras):
        down, right = shifts[index]
        rows = (np.arange(S) + down).clip(0, S - 1)
        columns = (np.arange(S) + right).clip(0, S - 1)
        out[index] = pictures[index].take(rows, axis=0).take(columns, axis=1)
    return out


class Batches:
    """All batches of a run for one rank; constants of the data are computed once."""

    def __init__(
        self,
        data: Demonstrations,
        statistics: Statistics,
        train: dict[str, Any],
        seed: int,
        rank: int,
        ranks: int,
    ) -> None:
        self.data = data
        self.train = train
        self.seed = seed
        self.rank = rank
        self.horizon: int = train["model"]["horizon"]
        order = Order((len(data.windows),), seed)
        self.sampler = Sampler(order, train["effective_batch"], train["micro_batch"], ranks)
        self.words, self.word_valid = language_tokens(data.instruction)
        summary = statistics.state
        self._state = [
            unified.normalise_state(episode.state, summary.mean, summary.std, data.contract)
            for episode in data.episodes
        ]
        lengths = np.array([len(episode) for episode in data.episodes])
        self._remaining = lengths[data.windows[:, 0]] - data.windows[:, 1]

    def step(self, step: int) -> list[Batch]:
        """The micro batches of one optimizer step."""
        return [self.micro(step, micro) for micro in range(self.train["accumulation"])]

    def micro(self, step: int, micro: int) -> Batch:
        """One micro batch of this rank."""
        ids = self.sampler.micro(step, micro, self.rank)
        windows = self.data.windows[ids]
        seed = derived_seed(self.seed, step, micro, self.rank)
        noise, t = self._noise(len(ids), seed)
        return Batch(
            pictures=torch.from_numpy(self._pictures(windows, seed)),
            words=self.words,
            word_valid=self.word_valid,
            state=torch.from_numpy(np.stack([self._state[e][row] for e, row in windows]))[:, None],
            actions=torch.from_numpy(self._actions(windows)),
            weight=torch.from_numpy(self._weight(ids, step)),
            noise=noise,
            t=t,
        )

    def _pictures(self, windows: NDArray[np.int64], seed: int) -> NDArray[np.uint8]:
        S = self.data.camera_size
        out = np.empty((len(windows), len(self.data.contract.cameras), S, S, 3), np.uint8)
        self.data.pictures(windows, out)
        pixels = self.train["image_shift_px"]
        return shift_pictures(out, pixels, np.random.default_rng(seed)) if pixels else out

    def _actions(self, windows: NDArray[np.int64]) -> NDArray[np.float32]:
        chunks = [self.data.chunk(int(e), int(row), self.horizon)[0] for e, row in windows]
        return unified.encode_action(np.stack(chunks), self.data.contract).astype(np.float32)

    def _weight(self, ids: NDArray[np.int64], step: int) -> NDArray[np.float32]:
        """1 / (real action steps of the whole effective batch) per real step, 0 for padding.

        Counted over all ranks and micro steps, so that the loss is the plain mean
        whichever rank got the ends of the episodes.
        """
        valid = np.minimum(self._remaining, self.horizon)
        count = valid[self.sampler.batch(step)].sum()
        return ((np.arange(self.horizon) < valid[ids][:, None]) / count).astype(np.float32)

    def _noise(self, samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        random = torch.Generator().manual_seed(seed)
        rows = samples * self.train["noise_draws"]
        noise = torch.randn(rows, self.horizon, UNIFIED_SIZE, generator=random)
        return noise, torch.randint(0, TRAIN_STEPS, (rows,), generator=random)
