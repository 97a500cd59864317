"""When a task may be started once more: a function of its rounds, and of the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.requeue import CAP_S, IDLE_ROUNDS, Round, job_id, judge
from launcher.core.job import Job
from launcher.core.runs import RunDir


@pytest.mark.parametrize(
    ("progress", "goes_on"),
    [
        ([0], True),
        ([0, 0], True),
        ([0] * IDLE_ROUNDS, True),
        ([0] * (IDLE_ROUNDS + 1), False),
        ([0, 0, 0, 5], True),
        ([5, 9, 9, 9, 9], False),
        ([1, 2, 3, 4, 5, 6, 7, 8], True),
    ],
)
def test_rounds_are_free_while_they_get_anywhere(progress: list[float], goes_on: bool) -> None:
    refusal = judge([Round(float(i), p) for i, p in enumerate(progress)], "train")
    assert (refusal is None) == goes_on
    assert refusal is None or refusal.problem.code == "RDTL-S011"


def test_an_attempt_does_not_go_on_for_ever() -> None:
    assert judge([Round(0.0, 0), Round(CAP_S + 1, 10)], "train") is not None


def test_an_array_task_is_requeued_alone() -> None:
    assert job_id({"SLURM_JOB_ID": "8"}) == "8"
    array = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    assert job_id(array) == "7_2"


def test_a_round_that_was_given_up_is_fenced_off(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.ledger.publish("claim.train.a1", indices=[0])
    for restart in (0, 1):
        run.ledger.publish(f"started.train.i0.a1.r{restart}", progress=0)
    old, new = (
        Job(run, {}, "train", index=0, count=1, attempt=1, node=0, restart=restart)
        for restart in (0, 1)
    )
    assert old.fenced()
    assert not new.fenced()
    assert (old.round, new.round) == ("a1", "a1r1")
    run.ledger.publish("finished.train.i0.n0.a1.r0", exit_code=85)
    assert run.ledger.exit_codes("train", 0, 1) == {}, "the round before says nothing of this one"
    run.ledger.publish("finished.train.i0.n0.a1.r1", exit_code=0)
    assert run.ledger.done("train", 0, 1)
