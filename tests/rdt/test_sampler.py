"""Every window exactly once per epoch, whoever asks and however the work is split."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rdt.data.sampler import Sampler


@st.composite
def samplers(draw: st.DrawFn) -> tuple[Sampler, int]:
    micro, ranks, accumulation = (draw(st.integers(1, 4)) for _ in range(3))
    batch = micro * ranks * accumulation
    windows, seed = draw(st.integers(1, 60)), draw(st.integers(0, 2**32))
    return Sampler(windows, batch, micro, ranks, seed), accumulation


@given(samplers(), st.integers(0, 5))
def test_each_window_once_per_epoch(case: tuple[Sampler, int], epoch: int) -> None:
    sampler, _ = case
    first, last = epoch * sampler.windows, (epoch + 1) * sampler.windows
    steps = range(first // sampler.effective_batch, last // sampler.effective_batch + 1)
    ids = np.concatenate([sampler.batch(step) for step in steps])
    offset = first - steps[0] * sampler.effective_batch
    assert sorted(ids[offset : offset + sampler.windows]) == list(range(sampler.windows))


@given(samplers(), st.integers(0, 50))
def test_ranks_and_micro_steps_share_a_batch(case: tuple[Sampler, int], step: int) -> None:
    sampler, accumulation = case
    parts = [
        sampler.micro(step, micro, rank)
        for micro in range(accumulation)
        for rank in range(sampler.ranks)
    ]
    assert np.concatenate(parts).tolist() == sampler.batch(step).tolist()


def test_order_depends_on_seed_and_epoch() -> None:
    first, other = (Sampler(100, 100, 100, 1, seed) for seed in (1, 2))
    assert first.batch(0).tolist() != other.batch(0).tolist()
    assert first.batch(0).tolist() != first.batch(1).tolist()
    assert first.batch(0).tolist() != list(range(100))
