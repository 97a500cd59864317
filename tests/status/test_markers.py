"""One listing says the same as the ledger's own answers, and sees what is new."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher import status
from launcher.core.plan import Stage
from launcher.core.runs import RunDir
from launcher.markers import Attempt, Markers
from tests.status import small_run

events = st.lists(
    st.tuples(
        st.integers(0, 2),  # index
        st.integers(0, 1),  # node
        st.integers(1, 2),  # attempt
        st.integers(0, 1),  # restart
        st.sampled_from([0, 0, 1, 85, 86, 143]),
    ),
    max_size=12,
    unique_by=lambda event: event[:4],
)


@settings(max_examples=20, deadline=None)
@given(events)
def test_it_agrees_with_the_ledger(found: list[tuple[int, int, int, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder))
        for attempt in (1, 2):
            run.ledger.publish(f"claim.s.a{attempt}", indices=[0, 1, 2])
        for index, node, attempt, restart, code in found:
            # A node ends only what was started before.
            for started in range(restart + 1):
                run.ledger.publish(f"started.s.i{index}.a{attempt}.r{started}", progress=0)
            name = f"finished.s.i{index}.n{node}.a{attempt}.r{restart}"
            run.ledger.publish(name, exit_code=code, error=None, host="n1")
        markers = Markers(run)
        for index in range(3):
            whole = [
                run.ledger.exit_codes("s", index, attempt) == {0: 0, 1: 0} for attempt in (1, 2)
            ]
            if any(whole):
                assert markers.done(Stage("s", (), nodes=2), index)
            for attempt, mark in markers.marks("s", index).items():
                codes = run.ledger.exit_codes("s", index, attempt)
                newest = mark.finished.get(mark.restart, {})
                assert codes == {node: event["exit_code"] for node, event in newest.items()}


def test_what_began_before_its_source_was_opened_again_is_not_done(tmp_path: Path) -> None:
    run = RunDir(tmp_path)

    def publish(name: str, **data: Any) -> None:
        run.ledger.publish(name, **data)
        time.sleep(0.002)

    report = Stage("report", (), needs=("work",), needs_ended=True)
    other = replace(report, needs_ended=False)

    def found() -> tuple[bool, bool, bool]:
        markers = Markers(run)
        return markers.done(report, 0), markers.overtaken(report, 0), markers.done(other, 0)

    publish("claim.work.a1", indices=[0, 1])
    publish("claim.report.a1", indices=[0])
    publish("started.report.i0.a1.r0", progress=0)
    assert found() == (False, False, False)
    publish("finished.report.i0.n0.a1.r0", exit_code=0, error=None, host="n1")
    assert found() == (True, False, True)
    publish("claim.work.a2", indices=[1])
    assert found() == (False, True, True)
    publish("claim.report.a2", indices=[0])
    assert found() == (False, False, True)
    publish("started.report.i0.a2.r0", progress=0)
    publish("finished.report.i0.n0.a2.r0", exit_code=0, error=None, host="n1")
    assert found() == (True, False, True)


def test_the_claims_of_a_stage_are_gone_through_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each failed task anew, an array of 20,000 took 14 CPU seconds to show."""
    run = small_run.make(tmp_path, "local", "false", tasks=30)
    run.ledger.publish("claim.work.a1", indices=list(range(30)))
    run.ledger.publish("submitted.work.a1", ids=["1"], indices=list(range(30)))
    for index in range(30):
        run.ledger.publish(f"started.work.i{index}.a1.r0", progress=0)
        run.ledger.publish(f"finished.work.i{index}.n0.a1.r0", exit_code=1, error=None, host="n1")
    newest, asked = Markers.newest, list[str]()

    def counted(self: Markers, stage: str) -> dict[int, Attempt]:
        asked.append(stage)
        return newest(self, stage)

    monkeypatch.setattr(Markers, "newest", counted)
    assert status.of(run, fresh=True).stages[0].counts == {"failed": 30}
    assert asked.count("work") == 1


def test_refresh_reads_what_is_new_and_nothing_twice(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.ledger.publish("claim.a.b.a1", indices=[0, 1, 2])
    markers = Markers(run)
    assert [attempt.indices for attempt in markers.attempts("a.b")] == [[0, 1, 2]]
    claim = run.ledger.folder / "claim.a.b.a1.json"
    claim.write_text("not read again")
    run.ledger.publish("submitted.a.b.a1.c0", ids=["7"], indices=[0, 1])
    run.ledger.publish("submitted.a.b.a1.c1", ids=["8"], indices=[2])
    run.ledger.publish("sending.a.b.a1.c1.t1", owner={})
    markers.refresh()
    (attempt,) = markers.attempts("a.b")
    assert attempt.places() == {0: ("7", 0), 1: ("7", 1), 2: ("8", 0)}


def test_an_unfinished_event_file_is_not_read(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.ledger.publish("claim.a.a1", indices=[0])
    (run.ledger.folder / ".finished.a.i0.n0.a1.r0.json.host.1.abc.part").write_text("{")
    assert Markers(run).marks("a", 0) == {}
