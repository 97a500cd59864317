"""The real network and the real loop: weights divided among ranks, other ranks, a small disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from jobs import dataset
from launcher.core import files
from launcher.core.job import Job
from rdt.policy import loading
from tests.rdt import synthetic
from tests.training import disks, ranks

pytestmark = [pytest.mark.train, pytest.mark.slow]


def prepared(run: Path, **train: object) -> None:
    """A run of twelve steps with its data."""
    settings = {"steps": 12, "checkpoint_every": 8, "log_every": 1, **train}
    synthetic.write_plan(run, **settings)
    synthetic.write_parts(run / "data/parts", 3)
    dataset.body(Job.from_environment(str(run)))


def losses(run: Path) -> dict[int, float]:
    """Loss by the number of steps done."""
    lines = map(json.loads, (run / "checkpoints/metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["train/loss"] for line in lines}


def trained(run: Path, **train: object) -> list[float]:
    """The losses of a run of twelve steps on two ranks."""
    prepared(run, **train)
    ranks.run(2, "jobs.train", run)
    return list(losses(run).values())


def test_zero_3_in_bf16_is_the_same_training(tmp_path: Path) -> None:
    exact = trained(tmp_path / "exact", zero_stage=1)
    divided = trained(tmp_path / "divided", zero_stage=3, dtype="bf16")
    assert len(divided) == 12
    assert divided == pytest.approx(exact, rel=0.02)
    for folder, steps in (("checkpoints/step_000008", 8), ("policy", 12)):
        policy = loading.load(tmp_path / "divided" / folder, seed=0)
        assert policy.card.training is not None
        assert policy.card.training.steps == steps
        assert policy.card.dtype == "float32"


def test_a_disk_too_small_is_said_before_the_first_step(tmp_path: Path) -> None:
    prepared(tmp_path)
    with disks.small(tmp_path / "checkpoints", 1000) as folder:
        assert ranks.start(2, "jobs.train", tmp_path).wait(timeout=120) == 3
        assert (folder / "metrics.jsonl").read_text() == ""
    error = json.loads((tmp_path / "error.json").read_text())
    assert error["code"] == "RDTL-G001"
    assert "missing" in error["what"]


def test_four_ranks_then_two_then_four(tmp_path: Path) -> None:
    """The same effective batches: the losses are those of four ranks all the way."""
    layout = {"micro_batch": 1, "ranks_per_node": 4, "zero_stage": 1}
    whole, two, four = (tmp_path / name for name in ("whole", "two", "four"))
    prepared(whole, checkpoint_every=4, keep_checkpoints=9, **layout)
    for run in (two, four):
        shutil.copytree(whole, run)
    plan = files.read_json(two / "plan.json")
    plan["config"]["train"].update(ranks_per_node=2, accumulation=2, zero_stage=2)
    files.write_json(two / "plan.json", plan)

    ranks.run(4, "jobs.train", whole)
    checkpoint = Path("checkpoints/step_000004")
    shutil.copytree(whole / checkpoint, two / checkpoint)
    ranks.run(2, "jobs.train", two)
    checkpoint = Path("checkpoints/step_000008")
    shutil.copytree(two / checkpoint, four / checkpoint)
    ranks.run(4, "jobs.train", four)

    expected, after_four, after_eight = losses(whole), losses(two), losses(four)
    assert list(after_four) == list(range(5, 13))
    assert list(after_eight) == list(range(9, 13))
    for found in (after_four, after_eight):
        assert found == pytest.approx({step: expected[step] for step in found}, rel=1e-3)
    worst = max(abs(loss / expected[step] - 1) for step, loss in after_eight.items())
    print(f"largest relative difference of the loss after 4 -> 2 -> 4 ranks: {worst:.1e}")
