"""What happens to a batch between the loader and the network, on the network's device.

In the reference's order: pictures are augmented, some conditions are dropped, what is left
is padded and resized; the state gets noise and is then perhaps dropped. Every draw depends
on the seed and the sample's position in the stream alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rdt.data import augmentation, draws
from rdt.data.augmentation import Draws
from rdt.data.batch import Batch
from rdt.encoders import pictures
from rdt.spec.contract import UNIFIED_SIZE, Contract

NOISE, DROPS, PICTURES, PIXELS = 1, 2, 3, 1 << 20
"""Purposes of draws; those for pictures count on from theirs."""


class Conditioned(NamedTuple):
    """Tensors of B samples on one device, m moments, c cameras.

    ``pictures`` (B, m, c, size, size, 3) uint8, the background where ``present`` (B, m, c)
    is False; ``states`` (B, 128) float32 in units of the contract; ``mask`` (B, 128) and
    ``freq`` (B,) float32 in Hz, zeros where dropped; ``words`` (B,) bool, False: the empty
    instruction; ``actions`` (B, H, 128) float32 and ``valid`` (B, H) as they were.
    """

    pictures: Tensor
    present: Tensor
    states: Tensor
    mask: Tensor
    freq: Tensor
    words: Tensor
    actions: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Transforms:
    """``size``: pixels that the encoder wants. Shares are of 0 … 1.

    ``augmented``: of pictures that are there; ``noise_db``: signal to noise of the state,
    None for none; ``dropped``: each condition by itself, ``dropped_external``: the pictures
    of the first camera, None for as often as the others.
    """

    contract: Contract
    seed: int
    size: int
    augmented: float = 0.0
    noise_db: float | None = None
    dropped: float = 0.0
    dropped_external: float | None = None

    def __call__(
        self,
        batch: Batch,
        state_mean: NDArray[np.float64],
        state_spread: NDArray[np.float64],
        device: torch.device,
    ) -> Conditioned:
        """``batch`` on ``device``, which then owes nothing to its arrays.

        ``state_mean`` (128,) of the data and ``state_spread`` (episodes, 128), the standard
        deviation within each episode (:meth:`SampleSource.state_spread`), in units of the contract.
        """
        B, shown = len(batch.positions), batch.present.shape[1:]
        drops = draws.uniform(self.seed, batch.positions, DROPS, 4 + int(np.prod(shown)))
        limits = np.full(shown, self.dropped)
        if self.dropped_external is not None:
            limits[:, 0] = self.dropped_external
        present = batch.present & (drops[:, 4:].reshape(B, *shown) >= limits)
        kept = drops[:, :4] >= self.dropped
        states = np.where(kept[:, :1], self._noisy(batch, state_spread), state_mean)
        mask = np.zeros((B, UNIFIED_SIZE), np.float32)
        mask[:, list(self.contract.mask_slots)] = kept[:, 1:2]
        freq = kept[:, 2] * np.float32(self.contract.control_hz)
        numbers = (present, states.astype(np.float32), mask, freq.astype(np.float32), kept[:, 3])
        rest = (
            torch.tensor(values, device=device) for values in (*numbers, batch.actions, batch.valid)
        )
        return Conditioned(self._pictures(batch, present, device), *rest)

    def _noisy(self, batch: Batch, spread: NDArray[np.float64]) -> NDArray[np.float64]:
        states = batch.states.astype(np.float64)
        if self.noise_db is None:
            return states
        noise = draws.normal(self.seed, batch.positions, NOISE, UNIFIED_SIZE)
        return states + noise * spread[batch.episodes] / 10 ** (self.noise_db / 20)

    def _pictures(self, batch: Batch, present: NDArray[np.bool_], device: torch.device) -> Tensor:
        """Those that are ``present``, augmented and fitted; the background elsewhere."""
        shape = (*batch.pictures.shape[:3], self.size, self.size, 3)
        out = torch.full(shape, pictures.GREY, dtype=torch.uint8, device=device)
        if not present.any():
            return out
        found = torch.from_numpy(batch.pictures[present]).to(device)
        self._augment(found, batch, present)
        out[torch.from_numpy(present).to(device)] = pictures.fitted_batch(found, self.size)
        return out

    def _augment(self, found: Tensor, batch: Batch, present: NDArray[np.bool_]) -> None:
        """Change some of ``found`` (n, h, w, 3), those of ``batch`` that are ``present``."""
        purposes = range(present[0].size)
        shape = (*present.shape, -1)
        words = [draws.words(self.seed, batch.positions, PIXELS + n, 1) for n in purposes]
        keys = np.stack(words, 1).reshape(shape)[present]
        count = len(Draws._fields)
        numbers = [draws.uniform(self.seed, batch.positions, PICTURES + n, count) for n in purposes]
        rows = np.stack(numbers, 1).reshape(shape)[present]
        for number in np.flatnonzero(rows[:, 0] < self.augmented).tolist():
            draw, key = Draws._make(rows[number].tolist()), int(keys[number, 0])
            found[number] = augmentation.augmented(found[number], draw, key)
