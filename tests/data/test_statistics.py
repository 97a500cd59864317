"""Statistics in pieces are those of the whole, and those of the published copies agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.core.errors import RefusedError
from rdt.data import unified
from rdt.data.declared import DeclaredSet
from rdt.data.measuring import measure
from rdt.data.statistics import Summary
from rdt.data.streaming import Histogram, Moments, Stream
from rdt.spec.contract import CONTRACTS, LIBERO_VELOCITY
from tests.data import writers
from tests.data.writers import Demo

LAYOUTS = ("collected", "rlds", "lerobot2", "lerobot3")


def pieces(seed: int, cuts: list[int], rows: int) -> list[np.ndarray[Any, Any]]:
    values = np.random.default_rng(seed).normal(3.0, [1e-3, 1.0, 50.0], (rows, 3))
    return [part for part in np.split(values, sorted(cuts)) if len(part)]


@given(st.integers(0, 99), st.lists(st.integers(1, 499), max_size=8))
@settings(max_examples=40, deadline=None)
def test_moments_of_pieces_are_those_of_the_whole(seed: int, cuts: list[int]) -> None:
    parts = pieces(seed, cuts, 500)
    whole = np.concatenate(parts)
    found = Moments.of(parts[0])
    for part in parts[1:]:
        found = found.merged(Moments.of(part))
    assert found.count == 500
    np.testing.assert_allclose(found.mean, whole.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found.std, whole.std(0), rtol=1e-12)
    np.testing.assert_array_equal([found.low, found.high], [whole.min(0), whole.max(0)])


def test_float32_pieces_are_summed_in_float64() -> None:
    """What a float32 sum gets wrong in the third digit (RDTL-D007) is right to twelve."""
    values = np.random.default_rng(0).normal(0.5, 0.1, (2_000_000, 2)).astype(np.float32)
    stream = Stream(exact_rows=1000)
    for part in np.array_split(values, 400):
        stream.add(part)
    assert stream.moments is not None
    truth = values.astype(np.float64).std(0)
    assert (np.abs(stream.moments.std / truth - 1) < 1e-12).all()
    assert (np.abs(values.std(0) / truth - 1) > 1e-6).all(), "the fixture shows the failure"


@pytest.mark.parametrize("grouping", ["one after the other", "two halves merged"])
def test_quantiles_are_exact_up_to_the_limit_and_not_kept_beyond(grouping: str) -> None:
    parts = pieces(1, [17, 100, 101, 400], 500)
    whole = np.concatenate(parts)
    streams = [Stream(exact_rows=500), Stream(exact_rows=500)]
    for number, part in enumerate(parts):
        streams[number % 2 if "halves" in grouping else 0].add(part)
    streams[0].merge(streams[1])
    expected = np.quantile(whole, [0.01, 0.99], axis=0)
    np.testing.assert_array_equal(streams[0].quantiles((0.01, 0.99)), expected)
    streams[0].add(whole[:1])
    assert streams[0].rows is None
    again = Stream(exact_rows=500)
    again.merge(streams[0])
    assert again.rows is None, "a part that let go of its rows makes the whole inexact"


@given(st.integers(0, 99), st.integers(1, 300), st.sampled_from(["normal", "signs", "few"]))
@settings(max_examples=60, deadline=None)
def test_histograms_are_off_by_half_a_bin_at_most(seed: int, rows: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    made = {
        "normal": random.standard_cauchy((rows, 2)),
        "signs": random.choice([-1.0, 1.0], (rows, 2)),
        "few": random.integers(0, 3, (rows, 2)) * 1.0,
    }
    values = made[kind]
    low, high = values.min(0), values.max(0)
    total, other = Histogram(low, high), Histogram(low, high)
    total.add(values[: rows // 2])
    other.add(values[rows // 2 :])
    total.merge(other)
    expected = np.quantile(values, [0.01, 0.99], axis=0)
    off = np.abs(total.quantiles((0.01, 0.99)) - expected)
    rounding = 1e-12 * np.abs(values).max()
    assert (off <= total.error + rounding).all()


def summarise(values: np.ndarray) -> Summary:
    """By numpy alone, of (n, d) float64."""
    low, high = np.quantile(values, [0.01, 0.99], axis=0)
    rows = (values.mean(0), values.std(0), values.min(0), values.max(0), low, high)
    return Summary(*(row.tolist() for row in rows))


@pytest.mark.parametrize("slots", [False, True])
def test_all_layouts_have_the_same_statistics(
    slots: bool, demos: list[Demo], request: pytest.FixtureRequest
) -> None:
    found = {
        name: measure(DeclaredSet(request.getfixturevalue(name)), LIBERO_VELOCITY, slots=slots)
        for name in LAYOUTS
    }
    state = np.concatenate([demo.state for demo in demos]).astype(np.float64)
    actions = np.concatenate([demo.arrays["actions"] for demo in demos]).astype(np.float32)
    expected = summarise(state), summarise(actions.astype(np.float64))
    if slots:
        robot = unified.RobotState(state[:, :3], state[:, 3:6], state[:, 6:], state[:, :7])
        expected = (
            summarise(unified.encode_state(robot, LIBERO_VELOCITY)),
            summarise(unified.encode_action(actions, LIBERO_VELOCITY)),
        )
    for measured in found.values():
        assert (measured.episodes, measured.steps) == (2, len(state))
        assert measured.digest == found["collected"].digest
        assert measured.quantile_error == 0
        for mine, right in zip((measured.state, measured.action), expected, strict=True):
            for key in ("min", "max", "q01", "q99"):
                np.testing.assert_array_equal(getattr(mine, key), getattr(right, key), key)
            np.testing.assert_allclose(mine.mean, right.mean, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(mine.std, right.std, rtol=1e-9, atol=1e-12)


def test_two_passes_of_two_processes(demos: list[Demo], tmp_path: Path) -> None:
    """Several files, rows beyond the limit: near the exact ones, and the same by any grouping."""
    for task in ("a", "b", "c"):
        path = writers.write_regenerated([demo.part(60) for demo in demos], tmp_path)
        path.rename(tmp_path / f"{task}_demo.hdf5")
    source = DeclaredSet(tmp_path)
    exact = measure(source, LIBERO_VELOCITY, slots=False, processes=1)
    counted = measure(source, LIBERO_VELOCITY, slots=False, processes=2, exact_rows=100)
    alone = measure(source, LIBERO_VELOCITY, slots=False, processes=1, exact_rows=100)
    assert exact.quantile_error == 0 < counted.quantile_error < 1e-4
    assert counted == alone
    assert (counted.digest, counted.steps) == (exact.digest, 360)
    for key in ("q01", "q99"):
        for part in ("action", "state"):
            mine, right = getattr(getattr(counted, part), key), getattr(getattr(exact, part), key)
            np.testing.assert_allclose(mine, right, rtol=0, atol=counted.quantile_error)


def test_a_changed_number_changes_the_digest_and_nan_is_refused(
    demos: list[Demo], tmp_path: Path
) -> None:
    def written(value: float, folder: str) -> Path:
        demo = demos[0].part(20)
        actions = demo.arrays["actions"].copy()
        actions[11, 2] = value
        demo.arrays["actions"] = actions
        (tmp_path / folder).mkdir()
        return writers.write_regenerated([demo], tmp_path / folder)

    digests = {
        measure(DeclaredSet(written(value, f"{value}")), LIBERO_VELOCITY, slots=False).digest
        for value in (0.25, 0.5)
    }
    assert len(digests) == 2
    path = written(np.nan, "nan")
    with pytest.raises(RefusedError) as error:
        measure(DeclaredSet(path), LIBERO_VELOCITY, slots=False)
    assert error.value.problem.code == "RDTL-D006"
    assert error.value.problem.where.startswith(f"{path}: demo_0, step 11")


def test_what_a_worker_refuses_arrives_whole(demos: list[Demo], tmp_path: Path) -> None:
    good, bad = demos[0].part(20), demos[1].part(20)
    bad.arrays["actions"] = np.where(np.arange(20)[:, None] == 5, np.inf, bad.arrays["actions"])
    for task, demo in (("a", good), ("b", bad), ("c", good)):
        path = writers.write_regenerated([demo], tmp_path)
        path.rename(tmp_path / f"{task}_demo.hdf5")
    with pytest.raises(RefusedError) as error:
        measure(DeclaredSet(tmp_path), LIBERO_VELOCITY, slots=True, processes=2)
    problem = error.value.problem
    assert problem.code == "RDTL-D006"
    assert problem.where == f"{tmp_path / 'b_demo.hdf5'}: demo_0, step 5 (1 of 20 steps)"


def test_a_contract_with_joints_needs_them(lerobot2: Path, collected: Path) -> None:
    contract = CONTRACTS["libero-raw-velocity"]
    assert measure(DeclaredSet(collected), contract, slots=True).state.std[3] > 0
    with pytest.raises(RefusedError, match="no joint positions") as error:
        measure(DeclaredSet(lerobot2), contract, slots=True)
    assert error.value.problem.code == "RDTL-D034"
    measure(DeclaredSet(lerobot2), contract, slots=False)
