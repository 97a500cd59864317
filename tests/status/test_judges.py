"""Markers first, then the queue, then accounting; silence never means that something runs."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from launcher import reasons
from launcher.controller import Row, Snapshot
from launcher.core.plan import Stage
from launcher.core.runs import RunDir
from launcher.judges import LIVE, Here, Judge, Queue, Task
from launcher.markers import Markers, Marks
from launcher.submit.slurm import job_name

STAGE = Stage("work", ("true",), array=3)


def ledger(tmp_path: Path, *, submitted: bool = True) -> RunDir:
    """Three tasks of which task 0 is done; the others have no marker."""
    run = RunDir(tmp_path)
    run.ledger.publish("claim.work.a1", indices=[0, 1, 2])
    if submitted:
        run.ledger.publish("submitted.work.a1", ids=["7"], indices=[0, 1, 2])
    run.ledger.publish("finished.work.i0.n0.a1.r0", exit_code=0, error=None, host="n1")
    return run


def row(tasks: str, state: str, reason: str = "None", name: str = "") -> Row:
    """A row of squeue; without a name it has that of the run which is judged."""
    return Row("7", tasks, state, reason, "N/A", "", name)


def judge(run: RunDir, *rows: Row, **values: object) -> Queue:
    named = tuple(replace(one, name=one.name or job_name(run, "work", "a1")) for one in rows)
    return Queue(Snapshot(**{"at": time.time() + 1, "rows": named, **values}), run)  # type: ignore[arg-type]


def task(run: RunDir, how: Judge, index: int, stage: Stage = STAGE) -> Task:
    markers = Markers(run)
    attempt = markers.newest("work")[index]
    job, place = attempt.places().get(index, ("", None))
    mark = markers.marks("work", index).get(1) or Marks()
    return how.task(stage, index, attempt, mark, job, place)


def test_the_queue_says_what_waits_and_why(tmp_path: Path) -> None:
    run = ledger(tmp_path)
    how = judge(run, row("1", "RUNNING"), row("2%4", "PENDING", "QOSMaxJobsPerUserLimit"))
    assert task(run, how, 1).state == "running"
    waits = task(run, how, 2)
    assert waits.state == "waiting"
    assert waits.why.startswith("as many of your jobs run as may run at once")


def test_a_job_that_can_never_start_is_not_alive(tmp_path: Path) -> None:
    run = ledger(tmp_path)
    found = task(run, judge(run, row("0-2", "PENDING", "DependencyNeverSatisfied")), 1)
    assert found.state not in LIVE
    assert "never" in found.why


def test_silence_is_unknown_and_unknown_is_never_startable(tmp_path: Path) -> None:
    run = ledger(tmp_path)
    found = task(run, judge(run, error="Unable to contact slurm controller"), 1)
    assert found.state == "unknown"
    assert found.state in LIVE


def test_an_answer_from_before_the_submission_says_nothing(tmp_path: Path) -> None:
    run = ledger(tmp_path)
    found = task(run, judge(run, at=time.time() - 60), 1)
    assert (found.state, found.why) == ("waiting", "just submitted; the queue was asked before")


def test_what_left_the_queue_without_a_marker_is_gone(tmp_path: Path) -> None:
    run = ledger(tmp_path)
    assert task(run, judge(run), 1).why == "left the queue without a word"
    ended = {"7_1": ["NODE_FAIL", "0:0", ""], "7_2": ["CANCELLED by 1000", "0:0", ""]}
    with_accounting = judge(run, ended=ended)
    assert task(run, with_accounting, 1).why == "its node died"
    assert task(run, with_accounting, 2).why == "was cancelled"
    assert judge(run).gone(Markers(run), plan_of(STAGE)).keys() == {"7"}
    assert with_accounting.gone(Markers(run), plan_of(STAGE)) == {}, "asked again for what is known"


def plan_of(stage: Stage):
    from launcher.core.plan import Plan

    return Plan("p", "s", (stage,), {})


def test_a_job_id_given_a_second_time_is_not_ours(tmp_path: Path) -> None:
    """A controller that lost its state counts from 1 again."""
    run = ledger(tmp_path)
    how = judge(run, row("0-2", "RUNNING", name=job_name(RunDir(tmp_path / "x"), "work", "a1")))
    assert task(run, how, 1).state == "gone"
    assert how.gone(Markers(run), plan_of(STAGE)).keys() == {"7"}


def test_node_fail_is_not_final_while_slurm_has_requeued_the_job(tmp_path: Path) -> None:
    run = ledger(tmp_path)
    ended = {"7_1": ["NODE_FAIL", "0:0", ""]}
    found = task(run, judge(run, row("1", "PENDING", "BeginTime"), ended=ended), 1)
    assert found.state == "waiting"
    assert "requeue" in found.why


def test_a_failure_of_one_node_counts_only_when_the_job_is_over(tmp_path: Path) -> None:
    """Of several nodes one may end first; then the others are still at work."""
    run = ledger(tmp_path)
    run.ledger.publish("finished.work.i1.n0.a1.r0", exit_code=5, error=None, host="n1")
    ending = judge(run, row("1", "COMPLETING"))
    assert task(run, ending, 1, replace(STAGE, nodes=2)).state == "running"
    over = task(run, judge(run), 1, replace(STAGE, nodes=2))
    assert (over.state, over.why, over.host) == ("failed", "exit code 5", "n1")
    assert task(run, ending, 1).state == "failed", "one node has nobody to wait for"


def test_an_old_answer_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    run = ledger(tmp_path)
    run.ledger.publish("started.work.i2.a1.r0", progress=0)
    silent = judge(run, row("0-2", "RUNNING"), error="Socket timed out")
    assert [task(run, silent, i).state for i in (1, 2)] == ["unknown", "unknown"]


def test_saved_work_is_no_failure(tmp_path: Path) -> None:
    run = ledger(tmp_path)
    run.ledger.publish("started.work.i1.a1.r0", progress=0)
    run.ledger.publish("finished.work.i1.n0.a1.r0", exit_code=85, error=None, host="n1")
    found = task(run, judge(run, row("1", "PENDING", "BeginTime")), 1)
    assert found.state == "waiting"
    assert found.why.startswith("saved its work")
    assert task(run, judge(run), 1).state == "gone"


def test_a_task_that_started_since_the_queue_was_asked_runs(tmp_path: Path) -> None:
    run = ledger(tmp_path)
    run.ledger.publish("started.work.i1.a1.r0", progress=0)
    old = judge(run, row("0-2", "PENDING", "Resources"), at=time.time() - 20)
    assert [task(run, old, i).state for i in (1, 2)] == ["running", "waiting"]


def test_ended_by_a_signal_from_outside_is_not_failed(tmp_path: Path) -> None:
    run = ledger(tmp_path)
    run.ledger.publish("finished.work.i1.n0.a1.r0", exit_code=143, error=None, host="n1")
    assert task(run, judge(run), 1).state == "gone"
    run.ledger.publish("cancelled.work.a1", by="eve", ids=["7"])
    assert task(run, judge(run), 1).why == "was cancelled by eve"


def test_a_claim_without_submission_is_looked_for_by_name(tmp_path: Path) -> None:
    run = ledger(tmp_path, submitted=False)
    name = job_name(run, "work", "a1")
    assert task(run, judge(run, row("0-2", "PENDING", name=name)), 1).state == "waiting"
    assert task(run, judge(run), 1).why == "being submitted"


def test_a_job_that_was_over_before_it_was_looked_up_has_left_the_queue(tmp_path: Path) -> None:
    """It left traces, so it was in, but nobody lists its id any more."""
    run = ledger(tmp_path, submitted=False)
    run.ledger.publish("submitted.work.a1", ids=[], indices=[0, 1, 2])
    assert task(run, judge(run), 1).why == "left the queue without a word"
    assert judge(run).gone(Markers(run), plan_of(STAGE)) == {}, "accounting knows no job without id"
    run.ledger.publish("finished.work.i2.n0.a1.r0", exit_code=5, error=None, host="n1")
    assert task(run, judge(run), 2).why == "exit code 5"


def test_a_local_task_lives_as_long_as_its_launcher(tmp_path: Path) -> None:
    run = ledger(tmp_path)
    run.ledger.publish("started.work.i1.a1.r0", progress=0)
    assert [task(run, Here(lives=True), i).state for i in (1, 2)] == ["running", "waiting"]
    assert [task(run, Here(lives=False), i).state for i in (1, 2)] == ["gone", "gone"]


@pytest.mark.parametrize(
    "reason",
    [
        "Priority",
        "Resources",
        "BeginTime",
        "Dependency",
        "PartitionTimeLimit",
        "JobArrayTaskLimit",
        "QOSMaxJobsPerUserLimit",
        "QOSMaxGRESPerUser",
        "QOSGrpCpuLimit",
        "AssocGrpGRES",
        "AssocMaxJobsLimit",
        "QOSMaxNodePerUserLimit",
        "ReqNodeNotAvail, UnavailableNodes:n[1-3]",
        "ReqNodeNotAvail, May be reserved for other job",
    ],
)
def test_reasons_are_said_in_plain_words(reason: str) -> None:
    said = reasons.waiting(reason)
    assert " " in said
    assert said != reason
    assert not reasons.never_starts("Priority")


def test_an_unknown_reason_is_shown_as_it_is() -> None:
    assert reasons.waiting("SomethingNew") == "SomethingNew"
