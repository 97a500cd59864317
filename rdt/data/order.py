"""In which order samples come: a function of the position in an endless stream.

Nothing is stored and nothing is drawn one after the other: sample number p of a run of
any length is computed from (seed, p) in the memory of the answer, so a resumed run, another
number of ranks and a second process agree without telling each other anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import UsageError

ROUNDS = 8
MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # splitmix64's
KINDS = ("enumerate", "random")
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]


def mix(values: Words, key: int) -> Words:
    """Hash 64-bit words under a key: neighbouring values and keys give unrelated words."""
    words = values + np.uint64(key)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(MULTIPLIERS[0])
    words = (words ^ (words >> np.uint64(27))) * np.uint64(MULTIPLIERS[1])
    return words ^ (words >> np.uint64(31))


def derived_key(*parts: int) -> int:
    """One 64-bit key of several whole numbers, by the same hash."""
    key = 0
    for part in parts:
        key = (key * GOLDEN + 1 + part) & MASK
        key = ((key ^ (key >> 30)) * MULTIPLIERS[0]) & MASK
        key = ((key ^ (key >> 27)) * MULTIPLIERS[1]) & MASK
        key ^= key >> 31
    return key


def permute(places: Ints, size: int, key: int) -> Ints:
    """Where each of ``places`` (n,), all in 0 … size - 1, goes in the permutation ``key``.

    A Feistel network permutes the next power of two; what falls outside of ``size`` is
    sent through again until it does not (cycle walking), which keeps it a permutation.
    """
    bits = (size - 1).bit_length()
    low = bits // 2
    keys = [derived_key(key, number) for number in range(ROUNDS)]
    words = places.astype(np.uint64)
    walking = np.arange(len(words))
    while len(walking):
        words[walking] = _feistel(words[walking], low, bits - low, keys)
        walking = walking[words[walking] >= np.uint64(size)]
    return words.astype(np.int64)


def _feistel(words: Words, low: int, high: int, keys: Sequence[int]) -> Words:
    """Permute the numbers of ``high + low`` bits; the two parts change in turns."""
    low_mask, high_mask = np.uint64((1 << low) - 1), np.uint64((1 << high) - 1)
    left, right = words >> np.uint64(low), words & low_mask
    for number, key in enumerate(keys):
        if number % 2 == 0:
            left = left ^ (mix(right, key) & high_mask)
        else:
            right = right ^ (mix(left, key) & low_mask)
    return (left << np.uint64(low)) | right


@dataclass(frozen=True)
class Order:
    """The endless stream of samples of one or several data sets.

    ``sizes``: samples of each set; a sample's number counts through all of them.
    "enumerate": an epoch shows each sample of a set as often as its weight says, exactly:
    weight 2 twice, weight 0.5 once in two epochs, shuffled. "random": draws with
    replacement in the same shares, as the reference loader does. Raises UsageError
    RDTL-D037 for a set without samples or with a weight that is not positive.
    """

    sizes: tuple[int, ...]
    seed: int
    weights: tuple[float, ...] = ()
    kind: str = "enumerate"

    def __post_init__(self) -> None:
        if not self.weights:
            object.__setattr__(self, "weights", (1.0,) * len(self.sizes))
        usable = all(math.isfinite(weight) and weight > 0 for weight in self.weights)
        if self.kind in KINDS and self.sizes and usable and min(self.shares) > 0:
            return
        raise UsageError(
            "RDTL-D037",
            "there is no order of these samples",
            where=f"order {self.kind!r}, samples {self.sizes}, weights {self.weights}",
            why=f"the order is one of {', '.join(KINDS)}; each data set needs samples, a weight "
            "above 0 and thereby at least one sample in an epoch",
            fix="raise the weight, or take the data set out of the list",
        )

    @cached_property
    def shares(self) -> tuple[int, ...]:
        """Samples that each set contributes to an epoch."""
        pairs = zip(self.sizes, self.weights, strict=True)
        return tuple(round(size * weight) for size, weight in pairs)

    @property
    def epoch(self) -> int:
        """Samples in one epoch."""
        return sum(self.shares)

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a stream to be continued, as JSON."""
        return {
            "sizes": list(self.sizes),
            "weights": list(self.weights),
            "seed": self.seed,
            "kind": self.kind,
        }

    def at(self, positions: Ints) -> Ints:
        """Sample numbers (n,) int64 at ``positions`` (n,) of the stream, each from 0 on."""
        if self.kind == "random":
            return self._drawn(positions)
        epochs, places = np.divmod(positions, self.epoch)
        out = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            slots = permute(places[here], self.epoch, derived_key(self.seed, epoch))
            out[here] = self._samples(slots, epoch)
        return out

    def _samples(self, slots: Ints, epoch: int) -> Ints:
        """Samples of an epoch's slots: each set goes through its own permutations, endlessly."""
        ends = np.cumsum(self.shares)
        owners = np.searchsorted(ends, slots, "right")
        out = np.empty_like(slots)
        first = 0
        for number, (size, share) in enumerate(zip(self.sizes, self.shares, strict=True)):
            mine = owners == number
            turns = slots[mine] - (ends[number] - share) + epoch * share
            out[mine] = first + self._turns(turns, number)
            first += size
        return out

    def _turns(self, turns: Ints, number: int) -> Ints:
        size, share = self.sizes[number], self.shares[number]
        if share == size:  # every epoch is one whole pass, which `at` has shuffled already
            return turns % size
        passes, places = np.divmod(turns, size)
        out = np.empty_like(turns)
        for each in np.unique(passes).tolist():
            here = passes == each
            key = derived_key(self.seed, number + 1, each, 1)
            out[here] = permute(places[here], size, key)
        return out

    def _drawn(self, positions: Ints) -> Ints:
        words = mix(positions.astype(np.uint64), derived_key(self.seed))
        slots = (words % np.uint64(self.epoch)).astype(np.int64)
        ends = np.cumsum(self.shares)
        owners = np.searchsorted(ends, slots, "right")
        sizes = np.array(self.sizes, np.uint64)
        inside = mix(positions.astype(np.uint64), derived_key(self.seed, 1)) % sizes[owners]
        return (np.cumsum(self.sizes) - self.sizes)[owners] + inside.astype(np.int64)
