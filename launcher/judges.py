"""The state of one task that has no success marker, by what the outside world says of it.

A judge per kind of outside world: nobody can be asked, a launcher on this machine,
a Slurm queue. :mod:`launcher.status` chooses one for each run.
"""

from __future__ import annotations

import fcntl
import time
from dataclasses import dataclass
from typing import Any, Literal

from launcher import reasons
from launcher.controller import Row, Snapshot, indices
from launcher.core.errors import EXIT_TERMINATED
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.markers import Attempt, Markers, Marks

State = Literal["done", "running", "waiting", "failed", "gone", "unknown", "unsubmitted"]
LIVE: tuple[State, ...] = ("running", "waiting", "unknown")
"""States of tasks that may still do something; nobody may start such a task again."""
ALIVE_WORDS = ("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING", "SUSPENDED")
SUBMITTING_S = 120.0
"""A claim without submission this old was made by a launcher that is no more."""


@dataclass(frozen=True)
class Task:
    """One task of a stage, as far as it is known."""

    index: int
    state: State
    why: str = ""
    """Why it waits, or how it failed or ended, for a person."""
    attempt: int = 0
    restart: int = 0
    job: str = ""
    host: str = ""


class Judge:
    """What is known beside the markers: here nothing, as nothing more is needed."""

    at = 0.0
    note = ""

    def task(
        self, stage: Stage, index: int, attempt: Attempt, mark: Marks, job: str, place: int | None
    ) -> Task:
        """The state of a task without success."""
        state, why = self.state(stage, attempt, mark, job, place)
        failure = mark.failure()
        if state not in LIVE and failure and not _failed(mark):
            why = why or "was ended from outside"
        elif state not in LIVE and failure:
            error = failure.get("error")
            said = error["what"] if error else f"exit code {failure['exit_code']}"
            state, why = "failed", said
        return Task(
            index,
            state,
            why,
            attempt.number,
            mark.restart,
            job,
            (failure or {}).get("host", ""),
        )

    def state(
        self, stage: Stage, attempt: Attempt, mark: Marks, job: str, place: int | None
    ) -> tuple[State, str]:
        """State and reason of a task as the outside world sees it."""
        return "gone", ""


def _failed(mark: Marks) -> bool:
    """Whether a node says that its program failed; one that was told to end did not."""
    failure = mark.failure()
    return failure is not None and failure["exit_code"] != EXIT_TERMINATED


def _by(cancelled: dict[str, Any]) -> str:
    return f"was cancelled by {cancelled['by']}"


class Silent(Judge):
    """Nobody can be asked."""

    def __init__(self, note: str) -> None:
        self.note = note

    def state(
        self, stage: Stage, attempt: Attempt, mark: Marks, job: str, place: int | None
    ) -> tuple[State, str]:
        return ("gone" if mark.failure() else "unknown"), self.note


class Here(Judge):
    """A local site: what has not ended lives exactly as long as its launcher."""

    def __init__(self, *, lives: bool) -> None:
        self._lives = lives

    def state(
        self, stage: Stage, attempt: Attempt, mark: Marks, job: str, place: int | None
    ) -> tuple[State, str]:
        if mark.finished.get(mark.restart):
            return "gone", "was ended after it had saved its work" if mark.saved() else ""
        if self._lives:
            return ("running", "") if mark.started else ("waiting", "its turn has not come")
        return "gone", "its launcher is gone"


def launcher_of(run: RunDir) -> int | None:
    """Process id of the launcher that drives a run from this machine, 0 if it is not written
    down, None when there is none."""
    path = run.root / "launcher.lock"
    try:
        with path.open("r", encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                words = handle.read().split()
                return int(words[1]) if len(words) == 2 and words[1].isdigit() else 0
            return None
    except FileNotFoundError:
        return None


class Queue(Judge):
    """A Slurm site."""

    def __init__(self, snapshot: Snapshot, run: RunDir) -> None:
        from launcher.submit.slurm import job_name, job_prefix

        self.at = snapshot.at
        self.note = snapshot.error
        self._snapshot = snapshot
        self._job_name = job_name
        self._run = run
        # A controller that lost its state gives a job id a second time: so the name counts too.
        ours = [row for row in snapshot.rows if row.name.startswith(job_prefix(run))]
        self._rows = {(row.job, place): row for row in ours for place in indices(row.tasks)}
        self._names = {row.name for row in ours}

    def gone(self, markers: Markers, the_plan: Plan) -> dict[str, float]:
        """Jobs that left the queue while tasks of theirs have no marker and no known end.

        With the time at which they were claimed (seconds since 1970).
        """
        found = {}
        for stage in the_plan.stages:
            newest = markers.newest(stage.name)
            places = {a.number: a.places() for a in markers.attempts(stage.name)}
            for index, attempt in newest.items():
                mark = markers.marks(stage.name, index).get(attempt.number) or Marks()
                job, place = places[attempt.number].get(index, ("", None))
                over = _failed(mark) or mark.done(stage.nodes)
                if not job or over or markers.done(stage, index):
                    continue
                if self._row(job, place) is None and self._ended(job, place) is None:
                    found[job] = attempt.claimed_at
        return found

    def _ended(self, job: str, place: int | None) -> list[str] | None:
        ended = self._snapshot.ended
        return ended.get(f"{job}_{place}") or ended.get(job)

    def _row(self, job: str, place: int | None) -> Row | None:
        return self._rows.get((job, place)) or self._rows.get((job, None))

    def state(
        self, stage: Stage, attempt: Attempt, mark: Marks, job: str, place: int | None
    ) -> tuple[State, str]:
        if place is None:
            return self._claimed(stage, attempt)
        if _failed(mark) and (stage.nodes == 1 or self.note):
            return "gone", ""  # its only node has said how it ended
        if self.note:
            return "unknown", "the scheduler does not answer"
        start = mark.started.get(mark.restart)
        if start and start["at"] >= self.at and mark.restart not in mark.finished:
            return "running", ""  # since the queue was asked
        row = self._row(job, place)
        if row is not None:
            return self._queued(row, mark)
        if attempt.submitted_at >= self.at and not mark.failure():
            return "waiting", "just submitted; the queue was asked before"
        return "gone", self._end(attempt, mark, job, place)

    def _queued(self, row: Row, mark: Marks) -> tuple[State, str]:
        if row.state in ALIVE_WORDS:
            return "running", "" if row.state == "RUNNING" else row.state.lower()
        if reasons.never_starts(row.reason) and row.reason.startswith("Dependency"):
            return "gone", reasons.waiting(row.reason)
        again = "saved its work and waits to go on: " if mark.saved() else ""
        return "waiting", again + reasons.waiting(row.reason)

    def _claimed(self, stage: Stage, attempt: Attempt) -> tuple[State, str]:
        """Claimed, but no submission is recorded: its launcher may have died in between."""
        name = self._job_name(self._run, stage.name, f"a{attempt.number}")
        if any(found == name or found.startswith(f"{name}.c") for found in self._names):
            return "waiting", "submitted; the job id is not recorded yet"
        if attempt.cancelled:
            return "gone", _by(attempt.cancelled)
        if attempt.jobs:
            return "unsubmitted", "it is sent when earlier parts of its array have left the queue"
        if time.time() - attempt.claimed_at < SUBMITTING_S:
            return "waiting", "being submitted"
        return "gone", "its launcher died before it was submitted"

    def _end(self, attempt: Attempt, mark: Marks, job: str, place: int | None) -> str:
        if attempt.cancelled:
            return _by(attempt.cancelled)
        row = self._ended(job, place)
        if row:
            return reasons.ended(row[0])
        if mark.failure():
            return ""
        saved = " after it had saved its work" if mark.saved() else ""
        return f"left the queue without a word{saved}"
