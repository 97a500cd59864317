"""Samples of several data sets as numbers, and the steps that belong to them.

A sample is one control step with a picture of its own. Steps count through all
episodes of all sets; with the cumulative lengths, the episodes of a whole batch and what is left of
them are a few vector operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Member(NamedTuple):
    """One data set: ``ends`` (episodes,) int64 cumulative lengths of its episodes, and
    ``sampled`` (n,) int64, its steps with a picture of their own, in rising order."""

    ends: Ints
    sampled: Ints


class Index:
    """``starts``, ``ends`` (episodes,) and ``bounds`` (sets + 1,) int64 count steps.

    ``firsts`` (sets,): the number of each set's first episode.

    ``sizes``: samples of each set. Sample numbers go from 0 to ``sum(sizes) - 1``, set
    after set, as :class:`rdt.data.order.Order` has them. ``complete``: every step is a
    sample.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.sizes = tuple(len(member.sampled) for member in members)
        self.bounds = np.cumsum([0, *(int(member.ends[-1]) for member in members)])
        shifted = zip(members, self.bounds[:-1], strict=True)
        self.ends = np.concatenate([member.ends + start for member, start in shifted])
        self.firsts = np.cumsum([0, *(len(member.ends) for member in members[:-1])])
        self.starts = np.concatenate([[0], self.ends[:-1]])
        self.complete = sum(self.sizes) == len(self)
        self._sampled = None if self.complete else self._sampled_steps(members)

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def _sampled_steps(self, members: Sequence[Member]) -> Ints:
        steps = np.empty(sum(self.sizes), np.int64)
        ranges = pairwise(np.cumsum([0, *self.sizes]).tolist())
        for member, (first, last), start in zip(members, ranges, self.bounds[:-1], strict=True):
            np.add(member.sampled, start, out=steps[first:last])
        return steps

    def steps(self, samples: Ints) -> Ints:
        """The steps (n,) of sample numbers (n,)."""
        return samples if self._sampled is None else self._sampled[samples]

    def episodes(self, steps: Ints) -> Ints:
        """The episodes (n,) of steps (n,)."""
        return np.searchsorted(self.ends, steps, "right")
