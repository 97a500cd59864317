"""Every sample exactly once per epoch, whoever asks and however the work is split."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.core.errors import UsageError
from rdt.data.order import Order, derived_key, permute
from rdt.data.sampler import BLOCK, Sampler

SEEDS = st.integers(0, 2**64)


@given(st.integers(1, 3000), SEEDS)
def test_a_permutation_of_any_size(size: int, seed: int) -> None:
    found = permute(np.arange(size), size, derived_key(seed))
    assert sorted(found.tolist()) == list(range(size))


def test_each_place_goes_everywhere() -> None:
    """Over many keys, the sample at one place is spread evenly: chi-squared, 99 degrees."""
    places = np.array([0, 1, 63, 99])
    found = np.array([permute(places, 100, derived_key(5, key)) for key in range(5000)])
    for column in found.T:
        counts = np.bincount(column, minlength=100)
        assert ((counts - 50) ** 2 / 50).sum() < 170, "beyond 1 in 100,000 if it were even"


def test_neighbours_part() -> None:
    """Neighbouring places go to unrelated ones, and an order is no shift of another."""
    first, second = (permute(np.arange(10_000), 10_000, derived_key(seed)) for seed in (1, 2))
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    assert len(np.unique((first - second) % 10_000)) > 5_000


@pytest.mark.parametrize("size", [200, 1000, 5000])
def test_a_buffer_that_gives_from_32_on_hardly_mixes(size: int) -> None:
    """RDTL-D024: one published loader, whatever the size of its buffer; and our order beside it."""
    random, source, buffer, out = np.random.default_rng(0), np.arange(20_000), [], []
    for sample in source.tolist():
        buffer.append(sample)
        if len(buffer) >= min(32, size):
            out.append(buffer.pop(random.integers(len(buffer))))
    theirs = np.abs(np.array(out) - np.arange(len(out))).mean()
    ours = np.abs(Order((len(source),), seed=1).at(source) - source).mean()
    assert theirs < 32
    assert ours == pytest.approx(len(source) / 3, rel=0.05)


@st.composite
def samplers(draw: st.DrawFn) -> tuple[Sampler, int]:
    micro, accumulation = (draw(st.integers(1, 4)) for _ in range(2))
    ranks = draw(st.sampled_from([1, 2, 7]))
    order = Order(tuple(draw(st.lists(st.integers(1, 60), min_size=1, max_size=3))), draw(SEEDS))
    return Sampler(order, micro * ranks * accumulation, micro, ranks), accumulation


@given(samplers(), st.integers(0, 5))
def test_each_sample_once_per_epoch(case: tuple[Sampler, int], epoch: int) -> None:
    sampler, _ = case
    size, batch = sampler.order.epoch, sampler.effective_batch
    first, last = epoch * size, (epoch + 1) * size
    steps = range(first // batch, last // batch + 1)
    ids = np.concatenate([sampler.batch(step) for step in steps])
    offset = first - steps[0] * batch
    assert sorted(ids[offset : offset + size]) == list(range(size))


@given(samplers(), st.integers(0, 50))
def test_ranks_and_micro_steps_share_a_batch(case: tuple[Sampler, int], step: int) -> None:
    sampler, accumulation = case
    parts = [
        sampler.micro(step, micro, rank)
        for micro in range(accumulation)
        for rank in range(sampler.ranks)
    ]
    assert np.concatenate(parts).tolist() == sampler.batch(step).tolist()


@given(samplers(), st.sampled_from([1, 2, 7]), st.integers(0, 40))
def test_each_sample_once_over_a_resume_with_other_ranks(
    case: tuple[Sampler, int], ranks: int, before: int
) -> None:
    """``before`` turns of all ranks, then a resume with another number of ranks and batch."""
    first, _ = case
    second = Sampler(first.order, 3 * ranks, 3, ranks)
    taken, seen = 0, []
    while len(seen) < 2 * first.order.epoch:
        sampler = first if taken < before * first.stride else second
        for rank in range(sampler.ranks):
            seen += sampler.part(taken, rank).tolist()
        taken += sampler.stride
    for epoch in range(2):
        part = seen[epoch * first.order.epoch : (epoch + 1) * first.order.epoch]
        assert sorted(part) == list(range(first.order.epoch))


def test_blocks_join_without_a_seam() -> None:
    order = Order((9970,), 3)
    sampler = Sampler(order, 700, 700)
    ids = np.concatenate([sampler.batch(step) for step in range(20)])
    assert len(ids) > 3 * BLOCK
    assert ids.tolist() == order.at(np.arange(len(ids))).tolist()


def test_order_depends_on_seed_and_epoch() -> None:
    first, other = (Sampler(Order((100,), seed), 100, 100) for seed in (1, 2))
    assert first.batch(0).tolist() != other.batch(0).tolist()
    assert first.batch(0).tolist() != first.batch(1).tolist()
    assert first.batch(0).tolist() != list(range(100))


def test_weights_are_exact_shares_of_an_epoch() -> None:
    order = Order((100, 38, 10), 5, (1.0, 0.5, 2.0))
    assert (order.shares, order.epoch) == ((100, 19, 20), 139)
    for epoch in range(0, 6, 2):
        ids = order.at(np.arange(epoch * 139, (epoch + 2) * 139))
        counts = np.bincount(ids, minlength=148)
        assert set(counts[:100]) == {2}
        assert set(counts[100:138]) == {1}, "weight 0.5: once in two epochs"
        assert set(counts[138:]) == {4}
    first, second = (order.at(np.arange(e * 139, (e + 1) * 139)) for e in (0, 2))
    halves = [sorted(ids[(ids >= 100) & (ids < 138)]) for ids in (first, second)]
    assert halves[0] != halves[1], "which half comes first differs"


def test_random_draws_keep_the_shares() -> None:
    order = Order((3000, 1000), 9, (1.0, 6.0), "random")
    ids = order.at(np.arange(90_000))
    counts = np.bincount(ids, minlength=4000)
    assert abs(counts[3000:].sum() / 90_000 - 2 / 3) < 0.01
    assert abs(counts[:3000].std() / np.sqrt(counts[:3000].mean()) - 1) < 0.1, "as Poisson draws"


def test_memory_does_not_grow_with_the_number_of_samples() -> None:
    order = Order((10**12,), 1)
    tracemalloc.start()
    ids = order.at(np.arange(5 * 10**11, 5 * 10**11 + 1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6
    assert len(np.unique(ids)) == 1000


@pytest.mark.parametrize(
    ("sizes", "weights", "kind"),
    [
        ((), (), "enumerate"),
        ((5, 0), (), "enumerate"),
        ((5,), (0.0,), "random"),
        ((5,), (float("nan"),), "random"),
        ((5,), (0.01,), "enumerate"),
        ((5,), (), "buffer"),
    ],
)
def test_what_gives_no_order(sizes: tuple[int, ...], weights: tuple[float, ...], kind: str) -> None:
    with pytest.raises(UsageError, match="no order") as error:
        Order(sizes, 1, weights, kind)
    assert error.value.problem.code == "RDTL-D037"
