"""Training batches as a function of (seed, step, micro step, rank).

No random number generator lives longer than one sample, and a sample's noise, diffusion times
and shifts depend on its place in the stream alone: a resumed run draws them again without
having saved anything, and so does a run on another number of ranks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rdt.data import batch as loaded
from rdt.data import draws, unified
from rdt.data.buffered import BufferedSource
from rdt.data.loader import Loader
from rdt.data.order import Order, derived_key
from rdt.data.sample_source import Learned, SampleSource
from rdt.data.sampler import Sampler
from rdt.data.statistics import Statistics
from rdt.data.transforms import Transforms
from rdt.diffusion import TRAIN_STEPS
from rdt.encoders.pictures import GREY
from rdt.encoders.words import Words
from rdt.model.trainable import Batch
from rdt.spec.contract import UNIFIED_SIZE
from rdt.spec.loss import slot_weights
from rdt.training.shown import Shown, tokens_of

NOISE, SHIFTS = 1, 2
"""Purposes of draws."""
TRANSFORMS = 3
"""Part of the key under which the transforms draw, whose purposes have numbers of their own."""
CPU = torch.device("cpu")
Ints = NDArray[np.int64]


def shift_pictures(
    pictures: NDArray[np.uint8], pixels: int, shares: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Shift each picture of (n, pictures, S, S, 3) by up to ``pixels`` each way, edges repeated.

    ``shares`` (n, pictures, 2) in [0, 1) say how far down and right: 0 is -pixels.
    """
    S = pictures.shape[2]
    shifts = (shares * (2 * pixels + 1)).astype(np.int64) - pixels
    out = np.empty_like(pictures)
    for index in np.ndindex(pictures.shape[:2]):
        down, right = shifts[index]
        rows = (np.arange(S) + down).clip(0, S - 1)
        columns = (np.arange(S) + right).clip(0, S - 1)
        out[index] = pictures[index].take(rows, axis=0).take(columns, axis=1)
    return out


class Batches:
    """All batches of a run for one rank, read ahead while they are asked for in their order.

    ``buffered`` holds samples of ``source`` that are read instead of decoding them. Use it in
    a ``with`` statement. ``epoch``: samples of one.
    """

    def __init__(
        self,
        source: SampleSource,
        order: Order,
        statistics: Statistics,
        train: dict[str, Any],
        rank: int,
        ranks: int,
        buffered: BufferedSource | None = None,
        device: torch.device = CPU,
        shown: Shown | None = None,
    ) -> None:
        self._source, self._train, self._rank = source, train, rank
        self._shown = buffered or source
        self._sampler = Sampler(order, train["effective_batch"], train["micro_batch"], ranks)
        self.epoch = order.epoch
        self._summary = statistics.state
        self._cameras = shown.cameras if shown else len(source.contract.cameras)
        told = tokens_of(source.instructions, shown.language if shown else Words())
        self._words, self._word_valid, self._word_rows = told
        self._device = device
        size = (shown and shown.size) or source.picture_size
        self._transforms = _transforms(source, order.seed, train, size)
        self._spread = _spread(source, train)
        slots = slot_weights(source.contract, train["loss"], train["loss_weights"])
        self._slots = torch.tensor(slots)
        self._loader: Loader | None = None

    def learned(self) -> Learned:
        """What the samples are taken of."""
        return self._source.learned()

    def words_digest(self) -> str:
        """Twelve hex digits over the tokens of all instructions that are learned from."""
        return hashlib.sha256(self._words.numpy().tobytes()).hexdigest()[:12]

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        if self._loader is not None:
            self._loader.__exit__()

    def step(self, step: int) -> Iterator[Batch]:
        """The micro batches of one optimizer step; each is valid until the next is asked for."""
        for micro in range(self._train["accumulation"]):
            yield self.micro(step, micro)

    def micro(self, step: int, micro: int) -> Batch:
        """One micro batch of this rank, valid until the next one is asked for."""
        batch = self._load(step * self._sampler.effective_batch + micro * self._sampler.stride)
        noise, t = self._noise(batch.positions)
        mean, std = np.asarray(self._summary.mean), self._summary.std
        shown = batch._replace(pictures=self._shifted(batch))
        seen = self._transforms(shown, mean, self._spread, self._device)
        told = np.where(seen.words.cpu(), self._word_rows[batch.episodes], len(self._words) - 1)
        language = torch.from_numpy(told)
        states = seen.states.cpu().numpy().astype(np.float64)
        state = unified.normalise_state(states, mean, std, self._source.contract)
        return Batch(
            pictures=self._slots_filled(seen.pictures).flatten(1, 2),
            words=self._words[language],
            word_valid=self._word_valid[language],
            state=torch.from_numpy(state)[:, None],
            mask=seen.mask[:, None],
            freq=seen.freq,
            actions=seen.actions,
            weight=torch.from_numpy(self._weight(batch.valid, step)),
            slots=self._slots,
            noise=noise,
            t=t,
        ).to(self._device)

    @property
    def whole_batches(self) -> int:
        """Effective batches after which an epoch is over, the last one filled up."""
        return -(-self.epoch // self._sampler.effective_batch)

    def describe(self, step: int) -> list[dict[str, Any]]:
        """Where the samples of one optimizer step come from, all ranks': file or folder,
        number of the episode in it, row, instruction."""
        index, stores = self._source.index, self._source.stores
        steps = index.steps(self._sampler.batch(step))
        found = []
        for row, episode in zip(steps.tolist(), index.episodes(steps).tolist(), strict=True):
            number = int(np.searchsorted(index.bounds, row, "right")) - 1
            found.append(
                {
                    "set": str(stores[number].path),
                    "episode": episode - int(index.firsts[number]),
                    "row": row - int(index.starts[episode]),
                    "instruction": self._source.instructions[episode],
                }
            )
        return found

    def _load(self, taken: int) -> loaded.Batch:
        """The batch that comes when all ranks have ``taken`` so many samples."""
        if self._loader is None or self._loader.taken != taken:
            self.__exit__()
            self._loader = Loader(self._shown, self._sampler, self._rank)
            identity = self._sampler.order.identity
            self._loader.load_state_dict({"taken": taken, "order": identity})
        return next(self._loader)

    def _shifted(self, batch: loaded.Batch) -> NDArray[np.uint8]:
        """The pictures (n, moments, cameras, S, S, 3) uint8, each moved by a few pixels."""
        n, moments, cameras, *picture = batch.pictures.shape
        pixels = self._train["image_shift_px"]
        if not pixels:
            return batch.pictures
        found = batch.pictures.reshape(n, moments * cameras, *picture)
        seed, count = self._sampler.order.seed, moments * cameras * 2
        shares = draws.uniform(seed, batch.positions, SHIFTS, count)
        moved = shift_pictures(found, pixels, shares.reshape(n, -1, 2))
        return moved.reshape(batch.pictures.shape)

    def _slots_filled(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures (n, moments, cameras, …) with the network's number of cameras: what the robot
        lacks is background."""
        missing = self._cameras - pictures.shape[2]
        if missing <= 0:
            return pictures[:, :, : self._cameras]
        empty = torch.full_like(pictures[:, :, :1], GREY)
        return torch.cat([pictures, *missing * [empty]], dim=2)

    def _weight(self, valid: NDArray[np.bool_], step: int) -> NDArray[np.float32]:
        """1 / (real action steps of the whole effective batch) per real step, 0 for padding.

        Counted over all ranks and micro steps, so that the loss is the plain mean
        whichever rank got the ends of the episodes.
        """
        index = self._source.index
        steps = index.steps(self._sampler.batch(step))
        real = np.minimum(index.ends[index.episodes(steps)] - steps, self._source.horizon)
        return (valid / real.sum()).astype(np.float32)

    def _noise(self, positions: Ints) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise (n * draws, H, 128) and times (n * draws,) of the samples at ``positions`` (n,)."""
        count, shape = self._train["noise_draws"], (self._source.horizon, UNIFIED_SIZE)
        noise = torch.empty(len(positions) * count, *shape)
        times = torch.empty(len(positions) * count, dtype=torch.int64)
        seeds = draws.words(self._sampler.order.seed, positions, NOISE, 1)[:, 0] >> np.uint64(1)
        for number, seed in enumerate(seeds.tolist()):
            random = torch.Generator().manual_seed(seed)
            rows = slice(number * count, (number + 1) * count)
            noise[rows].normal_(generator=random)
            times[rows].random_(0, TRAIN_STEPS, generator=random)
        return noise, times


def _transforms(source: SampleSource, seed: int, train: dict[str, Any], size: int) -> Transforms:
    return Transforms(
        source.contract,
        derived_key(seed, TRANSFORMS),
        size,
        augmented=train["augmentation"],
        noise_db=train["state_noise_db"],
        dropped=train["condition_dropout"],
        dropped_external=train["external_camera_dropout"],
    )


def _spread(source: SampleSource, train: dict[str, Any]) -> NDArray[np.float64]:
    """Of every episode, where noise is measured by it: a pass over all states."""
    if train["state_noise_db"] is None:
        return np.zeros((len(source.instructions), UNIFIED_SIZE))
    return source.state_spread()
