"""The ledger decides what is done, whoever was killed when."""

from __future__ import annotations

from pathlib import Path

from launcher.core.plan import Stage
from launcher.core.runs import RunDir
from launcher.markers import Markers


def done(run: RunDir, stage: str, nodes: int) -> bool:
    """Whether the first task of a stage is done."""
    return Markers(run).done(Stage(stage, (), nodes=nodes), 0)


def test_an_event_never_changes(tmp_path: Path) -> None:
    ledger = RunDir(tmp_path).ledger
    assert ledger.publish("claim.train.a1", indices=[0])
    assert not ledger.publish("claim.train.a1", indices=[1])
    event = ledger.read("claim.train.a1")
    assert event and event["indices"] == [0]


def test_a_task_is_done_when_one_attempt_ended_well_on_all_nodes(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    ledger = run.ledger
    ledger.publish("claim.train.a1", indices=[0])
    ledger.publish("finished.train.i0.n0.a1.r0", exit_code=0, error=None)
    assert not done(run, "train", 2)
    ledger.publish("finished.train.i0.n1.a1.r0", exit_code=1, error={"code": "RDTL-T018"})
    assert not done(run, "train", 2)
    failure = ledger.failure("train", 0, 1)
    assert failure and failure["error"]["code"] == "RDTL-T018"
    ledger.publish("claim.train.a2", indices=[0])
    # Half of attempt 1 and half of attempt 2 are not one success.
    ledger.publish("finished.train.i0.n1.a2.r0", exit_code=0, error=None)
    assert not done(run, "train", 2)
    ledger.publish("finished.train.i0.n0.a2.r0", exit_code=0, error=None)
    assert done(run, "train", 2)
    assert ledger.current_attempt("train") == 2


def test_stages_whose_names_begin_alike_do_not_mix(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    ledger = run.ledger
    ledger.publish("claim.eval.a1", indices=[0])
    ledger.publish("claim.evaluate.a3", indices=[0])
    ledger.publish("finished.evaluate.i0.n0.a3.r0", exit_code=0, error=None)
    ledger.publish("finished.evaluate.i01.n0.a3.r0", exit_code=1, error=None)
    assert ledger.attempts("eval") == [1]
    assert ledger.attempts("evaluate") == [3]
    assert done(run, "evaluate", 1)
    assert not done(run, "eval", 1)


def test_the_cause_is_the_node_that_failed_first(tmp_path: Path) -> None:
    """A dead node takes the others down; their exit codes say nothing about why."""
    ledger = RunDir(tmp_path).ledger
    ledger.publish("finished.run.i0.n1.a1.r0", exit_code=5, error=None)
    ledger.publish("finished.run.i0.n0.a1.r0", exit_code=143, error=None)
    failure = ledger.failure("run", 0, 1)
    assert failure and failure["exit_code"] == 5
