"""The real network and the real loop with the weights divided among two ranks, in bf16."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import dataset
from launcher.core.job import Job
from rdt.policy import loading
from tests.rdt import synthetic
from tests.training import disks, ranks

pytestmark = [pytest.mark.train, pytest.mark.slow]


def prepared(run: Path, **train: object) -> None:
    """A run of twelve steps with its data."""
    synthetic.write_plan(run, steps=12, checkpoint_every=8, log_every=1, **train)
    synthetic.write_parts(run / "data/parts", 3)
    dataset.body(Job.from_environment(str(run)))


def trained(run: Path, **train: object) -> list[float]:
    """The losses of a run of twelve steps."""
    prepared(run, **train)
    ranks.run(2, "jobs.train", run)
    lines = (run / "checkpoints/loss.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


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
        assert (folder / "loss.jsonl").read_text() == ""
    error = json.loads((tmp_path / "error.json").read_text())
    assert error["code"] == "RDTL-G001"
    assert "missing" in error["what"]
