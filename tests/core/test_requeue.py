"""When a task may be started once more: a function of its rounds, and of the ledger."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from jobs import requeue
from jobs.requeue import CAP_S, IDLE_ROUNDS, Round, job_id, judge
from launcher.core import children
from launcher.core.errors import EXIT_LOST
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


LOST, CRASHED = EXIT_LOST, 1


@pytest.mark.parametrize(
    ("codes", "asks"),
    [
        ({0: LOST}, 0),
        ({1: LOST, 2: LOST}, 1),
        ({0: LOST, 1: LOST, 2: LOST}, 0),
        ({0: LOST, 2: CRASHED}, None),
        ({0: LOST, 1: 86}, None),
        ({}, None),
    ],
)
def test_of_what_is_left_after_the_death_of_a_node_one_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codes: dict[int, int], asks: int | None
) -> None:
    """Of three nodes; who failed by itself is no reason to start all again."""
    monkeypatch.setattr(requeue, "SETTLE_S", 0.0)
    run = RunDir(tmp_path)
    for node, code in codes.items():
        run.ledger.publish(f"finished.train.i0.n{node}.a1.r0", exit_code=code)
    assert requeue.who_asks(run, "train", 0, 1, 3) == asks
    run.ledger.publish("started.train.i0.a1.r1", progress=0)
    assert requeue.who_asks(run, "train", 0, 1, 3) is None, "a newer round runs already"


def test_a_rank_that_only_lost_another_one_is_not_the_cause(tmp_path: Path) -> None:
    crashes = "trap '' TERM; touch ready; sleep 0.4; exit 1"
    both = [subprocess.Popen(["sh", "-c", text], cwd=tmp_path)
            for text in ("until test -e ready; do sleep 0.01; done; exit 87", crashes)]  # fmt: skip
    assert children.wait_for(both) == CRASHED
    ends = [subprocess.Popen(["sh", "-c", text]) for text in ("exit 87", "exec sleep 60")]
    assert children.wait_for(ends) == LOST, "the other one was ended by us"


def test_what_says_most_about_the_cause_comes_first(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    error = {"code": "RDTL-S059"}
    run.ledger.publish("finished.train.i0.n0.a1.r0", exit_code=LOST, error=error)
    run.ledger.publish("finished.train.i0.n1.a1.r0", exit_code=CRASHED, error=None)
    assert (run.ledger.failure("train", 0, 1) or {})["exit_code"] == CRASHED
    run.ledger.publish("finished.train.i0.n2.a1.r0", exit_code=1, error={"code": "RDTL-T018"})
    assert (run.ledger.failure("train", 0, 1) or {})["error"]["code"] == "RDTL-T018"
