"""What an evaluation publishes of its episodes: a line each, in a file of its process alone."""

from __future__ import annotations

import io
import os
import socket
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np

from jobs.evaluated import Tested
from jobs.fence import require_current
from launcher.core import files
from launcher.core.job import Job
from rdt.sim.episode import Outcome
from rdt.sim.tasks import find_task
from rdt.spec.protocol import ACTIONS, BEGUN
from rdt.spec.record import EpisodeKey, Record, Status

Result = tuple[Status, Outcome | None, str]
"""Status, outcome (None unless the episode has a result) and error text."""


def begun(job: Job) -> set[str]:
    """Names of episodes in which a process is, or has died: each of them has a note of its own."""
    found = set()
    for path in _notes(job).glob("*"):
        with suppress(FileNotFoundError):  # its episode has just ended
            found.add(path.read_text(encoding="utf-8"))
    return found


def _notes(job: Job) -> Path:
    return job.run.records / BEGUN


class Book:
    """This process's own record file; the actions of an episode are there before its line."""

    def __init__(self, job: Job, fingerprint: str, tested: Tested) -> None:
        self._job = job
        self._fingerprint = fingerprint
        self._tested = tested
        self._descriptor: int | None = None
        self._begun = _notes(job) / f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"

    def part(self) -> Path:
        """A new file's name: a process id returns in containers, and a file may end torn."""
        unique = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        return self._job.run.records / f"part-{self._job.round}-s{self._job.index}-{unique}.jsonl"

    def begin(self, key: EpisodeKey) -> None:
        """Note the episode that begins; should this process die in it, the note stays."""
        self._begun.parent.mkdir(parents=True, exist_ok=True)
        self._begun.write_text(key.text(), encoding="utf-8")

    def write(self, result: Result, key: EpisodeKey) -> None:
        """Publish one episode, unless a newer attempt took over (RDTL-S034)."""
        record, outcome = self.record(result, key), result[1]
        require_current(self._job)
        if outcome is not None:
            path = self._job.run.records / ACTIONS / f"{key.text()}.npy"
            with files.whole_file(path) as temporary, temporary.open("wb") as handle:
                array = io.BytesIO()  # into a file numpy does not see all that a full disk refuses
                np.save(array, outcome.actions, allow_pickle=False)
                handle.write(array.getbuffer())
        if self._descriptor is None:
            self._descriptor = files.open_new(self.part())
        files.append_line(self._descriptor, record.line())
        self._begun.unlink(missing_ok=True)
        ended = f"{record.status}, {record.steps} steps, {record.wall_s:.1f} s"
        print(f"{key.text()}: {ended}", flush=True)

    def record(self, result: Result, key: EpisodeKey) -> Record:
        """What :meth:`write` publishes."""
        status, outcome, error = result
        return Record(
            **key._asdict(),
            task_name=find_task(key.suite, key.task_id).name,
            status=status,
            steps=len(outcome.actions) if outcome else 0,
            queries=outcome.queries if outcome else 0,
            renders=outcome.renders if outcome else 0,
            wall_s=round(outcome.wall_s, 3) if outcome else 0.0,
            policy_s=round(outcome.policy_s, 3) if outcome else 0.0,
            protocol=self._fingerprint,
            checkpoint=self._tested.checkpoint if key.policy == self._tested.name else "",
            actions_sha256=outcome.actions_sha256 if outcome else "",
            fixtures_sha256=outcome.fixtures_sha256 if outcome else "",
            state_sha256=outcome.state_sha256 if outcome else "",
            attempt=self._job.attempt,
            shard=self._job.index,
            host=socket.gethostname(),
            error=error,
        )
