"""Samples, steps and episodes of several sets, and an index of ten million steps."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rdt.data.index import Index, Member
from rdt.data.order import Order
from rdt.data.sampler import Sampler

SETS = st.lists(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), min_size=1), min_size=1)


@given(SETS)
def test_every_sample_has_its_step_and_episode(sets: list[list[tuple[int, int]]]) -> None:
    """Episodes of any lengths, of which each ``every``-th step has a picture."""
    members, expected, first, episode = [], [], 0, 0
    for episodes in sets:
        ends = np.cumsum([length for length, _ in episodes])
        sampled = []
        for (length, every), end in zip(episodes, ends.tolist(), strict=True):
            rows = [row for row in range(length) if row % every == 0]
            sampled += [end - length + row for row in rows]
            expected += [(first + end - length + row, episode) for row in rows]
            episode += 1
        members.append(Member(ends, np.array(sampled)))
        first += int(ends[-1])
    index = Index(members)
    assert len(index) == first
    steps = index.steps(np.arange(sum(index.sizes)))
    assert list(zip(steps.tolist(), index.episodes(steps).tolist(), strict=True)) == expected
    assert index.complete == (len(expected) == first)
    assert index.firsts.tolist() == np.cumsum([0, *map(len, sets[:-1])]).tolist()


def test_ten_million_steps() -> None:
    """The bars are 5 s and 200 MB for the index, 1 s for the first samples after a resume."""
    lengths = np.random.default_rng(0).integers(70, 230, 66_667)
    ends = np.cumsum(lengths)
    every_second = np.arange(0, int(ends[-1]), 2)
    members = [Member(ends, np.arange(int(ends[-1]))), Member(ends, every_second)]
    tracemalloc.start()
    began = time.process_time()
    index = Index(members)
    assert len(index) > 19e6
    assert time.process_time() - began < 5
    assert tracemalloc.get_traced_memory()[1] < 2 * 200e6, "20 million steps"
    tracemalloc.stop()
    began = time.process_time()
    sampler = Sampler(Order(index.sizes, 1, (1.0, 0.5)), 256, 32, 8)
    steps = index.steps(sampler.part(123_456 * 256, rank=5))
    episodes = index.episodes(steps)
    assert time.process_time() - began < 1
    assert ((index.starts[episodes] <= steps) & (steps < index.ends[episodes])).all()
