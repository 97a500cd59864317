"""Which checkpoints go, and whether those that stay fit: pure decisions."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.core import retention
from launcher.core.errors import RdtlError, RefusedError
from rdt.training import checkpoint, checkpoint_budget, checkpoint_files
from tests.training import tiny

pytestmark = pytest.mark.train


@pytest.mark.parametrize(
    ("there", "keep", "keep_every", "best", "gone"),
    [
        ([100, 200, 300, 400], 2, None, None, [100, 200]),
        ([400, 100, 300, 200], 2, None, None, [100, 200]),
        ([100, 200, 300, 400], 1, 200, None, [100, 300]),
        ([100, 200, 300, 400], 1, None, 100, [200, 300]),
        ([100, 200, 300, 400], 1, 300, 100, [200]),
        ([100], 3, 50, 100, []),
        ([], 1, None, None, []),
    ],
)
def test_what_goes(
    there: list[int], keep: int, keep_every: int | None, best: int | None, gone: list[int]
) -> None:
    assert retention.superfluous(there, keep, keep_every, best) == gone


@given(
    st.sets(st.integers(1, 999)), st.integers(1, 5), st.none() | st.integers(1, 99), st.integers()
)
def test_what_is_asked_for_stays(
    there: set[int], keep: int, keep_every: int | None, best: int
) -> None:
    """The newest always, and a second look takes nothing more."""
    gone = retention.superfluous(list(there), keep, keep_every, best)
    left = there - set(gone)
    assert left >= set(sorted(there)[-keep:])
    assert best not in gone
    assert all(step in left for step in there if keep_every and step % keep_every == 0)
    assert retention.superfluous(list(left), keep, keep_every, best) == []


def published(folder: Path, *steps: int) -> None:
    for step in steps:
        temporary = folder / f".tmp-step_{step:06d}-a1"
        temporary.mkdir(parents=True)
        (temporary / "weights.pt").write_bytes(bytes(100))
        listed = checkpoint_files.fingerprints(temporary, [temporary / "weights.pt"])
        final = retention.place(folder, step)
        checkpoint_files.publish(temporary, final, {"step": step}, listed)


@pytest.mark.parametrize(("metric", "best"), [("validation_loss", 200), ("success", 300)])
def test_the_best_by_a_metric_stays(metric: str, best: int, tmp_path: Path) -> None:
    published(tmp_path, 100, 200, 300, 400, 500)
    for step, value in ((100, 0.5), (200, 0.1), (300, 0.9), (400, float("nan")), (600, 9.0)):
        retention.record_score(tmp_path, step, metric, value)
    assert retention.best(tmp_path, metric) == best
    other = {"validation_loss": "success", "success": "validation_loss"}[metric]
    assert retention.best(tmp_path, other) is None
    train = {"keep_checkpoints": 1, "keep_every": None, "keep_best": metric}
    checkpoint_files.prune(tmp_path, train)
    assert retention.steps(tmp_path) == [best, 500]
    assert not list(tmp_path.glob(".tmp-*"))


def test_only_finished_checkpoints_count(tmp_path: Path) -> None:
    for name in ("step_000010", "step_000200", ".tmp-step_000300-a1", "step_x"):
        (tmp_path / name).mkdir()
    assert retention.steps(tmp_path) == [10, 200]
    checkpoint_files.clean(tmp_path)
    assert not (tmp_path / ".tmp-step_000300-a1").exists()


def test_damage_is_named(tmp_path: Path) -> None:
    published(tmp_path, 10)
    path = retention.place(tmp_path, 10)
    assert checkpoint_files.damage(path) == []
    (path / "weights.pt").write_bytes(bytes(99) + b"x")
    assert checkpoint_files.damage(path) == [f"{path}/weights.pt: other content than was written"]
    assert checkpoint_files.damage(path, share=1, of=2) == []  # the other rank's file
    (path / "weights.pt").write_bytes(bytes(99))
    assert checkpoint_files.damage(path) == [f"{path}/weights.pt: 99 of 100 bytes"]
    (path / "weights.pt").unlink()
    assert checkpoint_files.damage(path) == [f"{path}/weights.pt: the file is missing"]
    (path / "state.json").write_text("{")
    assert "state.json" in checkpoint_files.damage(path)[0]


def test_a_checkpoint_of_another_experiment_is_refused(tmp_path: Path) -> None:
    identity = {"settings": "a", "dataset": "b"}
    checkpoint.require_identity(tmp_path, {**identity, "step": 3}, identity)
    with pytest.raises(RefusedError, match="another dataset") as caught:
        checkpoint.require_identity(tmp_path, {**identity, "dataset": "c"}, identity)
    assert caught.value.problem.code == "RDTL-T012"


def settings(**train: Any) -> dict[str, Any]:
    return {**tiny.SETTINGS, **train}


@pytest.mark.parametrize(
    ("train", "total", "most"),
    [
        ({}, None, 3),
        ({}, 1000, 3),
        ({}, 8, 2),
        ({"keep_best": "success"}, 1000, 4),
        ({"keep_every": 100}, 1000, 13),
    ],
)
def test_how_many_there_are_at_once(train: dict[str, Any], total: int | None, most: int) -> None:
    assert checkpoint_budget.most_at_once(settings(**train), total) == most


def test_a_run_that_would_fill_the_disk_is_refused(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    checkpoint_budget.require_room(tmp_path, free // 4, settings(), None)
    with pytest.raises(RefusedError, match="missing") as caught:
        checkpoint_budget.require_room(tmp_path, free // 2, settings(), None)
    assert caught.value.problem.code == "RDTL-G001"
    assert "3 of" in caught.value.problem.where


def test_checkpoints_that_are_there_count(tmp_path: Path) -> None:
    """A resumed run does not need their space twice."""
    free, size = shutil.disk_usage(tmp_path).free, 1 << 20
    big = retention.place(tmp_path, 4)
    big.mkdir()
    with pytest.raises(RefusedError):
        checkpoint_budget.require_room(tmp_path, free // 2 - size, settings(), None)
    with (big / "weights.pt").open("wb") as file:
        os.truncate(file.fileno(), free)  # sparse: its size counts
    checkpoint_budget.require_room(tmp_path, free // 2 - size, settings(), None)


def test_sizes_as_people_say_them() -> None:
    assert checkpoint_budget.gigabytes(22_140_000_000) == "22.1 GB"
    assert checkpoint_budget.gigabytes(3_400_000) == "3.4 MB"
    error = checkpoint_budget.full_disk(Path("/"), 10**18)
    assert isinstance(error, RdtlError)
    assert error.problem.code == "RDTL-G009"
