"""What `rdtl runs cancel` ends: also jobs without a recorded id, and what a launcher would send."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from launcher import cancel, controller, logs, status
from launcher.arrays import Part
from launcher.core import files
from launcher.core.errors import RdtlError
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.drive import submit_all
from launcher.submit.slurm import job_name
from tests.cli.run_rdtl import rdtl
from tests.status.test_resubmit import Queue

WORK = Stage("work", ("true",), array=3)
REPORT = Stage("report", ("true",), needs=("work",), needs_ended=True)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run whose first stage was claimed ten minutes ago, on a cluster with an empty queue."""
    made = RunDir(tmp_path / "run")
    files.write_json(made.plan, Plan("p", "elsewhere", (WORK, REPORT), {}).to_dict())
    made.site.write_text("kind: slurm\n")
    claim = {"indices": [0, 1, 2], "part_size": None, "at": time.time() - 600}
    files.write_json(made.ledger.folder / "claim.work.a1.json", claim)
    (tmp_path / "queue").write_text("")
    for name, line in (("squeue", "cat queue"), ("scancel", 'echo "$@" >> cancelled')):
        (tmp_path / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{line}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return made


def test_a_job_without_a_recorded_id_is_found_by_its_name(run: RunDir, tmp_path: Path) -> None:
    names = [job_name(run, "work", "a1"), "rdtl-of-another-run-a1"]
    rows = [f"{41 + i}|0-2|PENDING|Priority|N/A||{name}\n" for i, name in enumerate(names)]
    (tmp_path / "queue").write_text("".join(rows))
    assert status.of(run, fresh=True).stages[0].why("waiting").startswith("submitted; the job id")
    assert cancel.cancel(run) == cancel.Cancelled(["41"], 3, 1)
    assert (tmp_path / "cancelled").read_text() == "41\n"
    assert run.ledger.read("cancelled.work.a1")


def test_a_job_id_given_a_second_time_is_left_alone(run: RunDir, tmp_path: Path) -> None:
    run.ledger.publish("submitted.work.a1", ids=["41"], indices=[0, 1, 2])
    # Said by a node whose clock is ahead.
    started = {"progress": 0, "at": time.time() + 600}
    files.write_json(run.ledger.folder / "started.work.i0.a1.r0.json", started)
    (tmp_path / "queue").write_text("41|0-2|PENDING|Priority|N/A||rdtl-of-another-run-a1\n")
    cancel.cancel(run)
    assert not (tmp_path / "cancelled").exists(), "another run's job was ended"


@pytest.mark.parametrize(
    ("line", "said"),
    [("exec sleep 30", "timed out"), ("printf 'job \\351 lives' >&2; exit 1", "lives")],
    ids=["hangs", "complains"],
)
def test_a_scancel_that_does_not_do_it_is_said(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    monkeypatch.setattr(cancel, "SCANCEL_S", 0.3, raising=False)
    (tmp_path / "queue").write_text(f"41|0-2|RUNNING|None|N/A|n1|{job_name(run, 'work', 'a1')}\n")
    (tmp_path / "scancel").write_text(f"#!/bin/sh\n{line}\n")
    with pytest.raises(RdtlError) as failed:
        cancel.cancel(run)
    assert failed.value.problem.code == "RDTL-S039"
    assert said in failed.value.problem.where
    assert not list((tmp_path / "cache").rglob("queue-*.json")), "the next look sees an old answer"


def test_what_a_launcher_would_still_send_is_ended_once(run: RunDir, tmp_path: Path) -> None:
    assert cancel.cancel(run) == cancel.Cancelled([], 3, 1)
    assert not (tmp_path / "cancelled").exists(), "there is no job"
    assert status.of(run, fresh=True).stages[0].why("gone").startswith("was cancelled by ")
    assert cancel.cancel(run) == cancel.Cancelled([], 0, 4), "there is nothing left to end"


def test_a_job_without_tasks_is_not_called_a_task(run: RunDir, tmp_path: Path) -> None:
    cancel.cancel(run)
    name = job_name(run, "report", "a1")
    (tmp_path / "queue").write_text(f"42|N/A|COMPLETING|None|N/A|n1|{name}\n")
    done = rdtl("runs", "cancel", str(run.root), cwd=tmp_path)
    assert done.stderr.startswith("no task of this run is alive; what was left of it was asked to ")
    assert (tmp_path / "cancelled").read_text() == "42\n"


def test_a_launcher_that_waits_for_room_sends_nothing_after_that(tmp_path: Path) -> None:
    run = RunDir(tmp_path)

    class Full(Queue):
        """Takes nothing at first; while the launcher waits, somebody cancels the run."""

        def room(self, tasks: int) -> bool:
            return not run.ledger.publish("cancelled.work.a1", by="eve", ids=[])

    queue = Full()
    with pytest.raises(RdtlError) as ended:
        submit_all(run, Plan("p", "s", (WORK, REPORT), {}), queue)
    assert ended.value.problem.code == "RDTL-S036"
    assert queue.sent == [], "a report on nothing was sent"
    assert set(submit_all(run, Plan("p", "s", (WORK, REPORT), {}), Queue())) == {"work", "report"}
    assert run.ledger.attempts("work") == [1, 2], "it continues"


def test_a_job_that_goes_in_while_the_run_is_cancelled_is_ended(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    over: list[str] = []

    class Slow(Queue):
        def submit(self, stage: Stage, part: Part, after: list[str]) -> list[str]:
            run.ledger.publish("cancelled.work.a1", by="eve", ids=[])
            return super().submit(stage, part, after)

        def alive(self, ids: list[str]) -> set[str]:
            return set(ids).difference(over)

        def cancel(self, ids: list[str]) -> None:
            over.extend(ids)

    with pytest.raises(RdtlError, match="ended from outside"):
        submit_all(run, Plan("p", "s", (WORK,), {}), Slow())
    assert over == ["work-a1"]


@pytest.mark.parametrize("saved", [True, False], ids=["saved", "died with its node"])
def test_a_log_is_followed_until_its_task_has_left_the_queue(
    run: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    monkeypatch.setattr(logs, "LOOK_S", 0.1, raising=False)
    monkeypatch.setattr(controller, "HOLD_S", 0.1)
    run.ledger.publish("submitted.work.a1", ids=["41"], indices=[0, 1, 2])
    run.ledger.publish("started.work.i0.a1.r0", progress=0)
    (tmp_path / "queue").write_text(f"41|0|RUNNING|None|N/A|n1|{job_name(run, 'work', 'a1')}\n")
    run.log("work", 1, 0, 0).parent.mkdir(parents=True)
    run.log("work", 1, 0, 0).write_text("begun\n")
    one, lines = status.of(run, fresh=True), list[tuple[int, str]]()
    log = logs.choose(one, "work", 0, None)
    reader = threading.Thread(target=lambda: lines.extend(logs.follow(log, one)), daemon=True)
    reader.start()
    reader.join(0.5)
    assert reader.is_alive(), "its job is in the queue"
    if saved:
        run.ledger.publish("finished.work.i0.n0.a1.r0", exit_code=86, error=None, host="n1")
        reader.join(0.5)
        assert reader.is_alive(), "it may be started again"
    (tmp_path / "queue").write_text("")
    reader.join(10)
    assert not reader.is_alive()
    assert lines == [(0, "begun")]
