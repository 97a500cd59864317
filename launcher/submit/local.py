"""A capped local executor behind submitit's Executor interface.

submitit's own LocalExecutor starts everything at once, two processes a job,
with a pause of 0.2 s between jobs. This one keeps at most ``jobs`` processes
alive, starts the next as soon as one ends, and its tasks import only what the
called function needs. Tasks are started from the thread that polls, because the
kernel ties ``die_with_parent`` to that thread.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import cloudpickle
from submitit.core import core, utils

from launcher.core.job import die_with_parent

POLL_S = 0.005


class LocalJob(core.Job[Any]):
    """One process. Its result is a file; its state is the process itself."""

    watcher = core.InfoWatcher()

    def __init__(self, executor: CappedExecutor, job_id: str) -> None:
        super().__init__(executor.folder, job_id)
        self._executor = executor

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """The process once it was started. The executor keeps it, not the job: ``batch`` hands
        out copies of jobs."""
        return self._executor.processes.get(self.job_id)

    def done(self, force_check: bool = False) -> bool:
        """Whether the process has ended; lets the executor start what may start now."""
        self._executor.pump()
        return self.process is not None and self.process.poll() is not None

    def wait(self) -> None:
        """Block until the process has ended."""
        while not self.done():
            time.sleep(POLL_S)

    def cancel(self, check: bool = True) -> None:
        """Never start it, or ask it to end (SIGTERM); ``check`` waits for the end."""
        self._executor.forget(self)
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            if check:
                self.process.wait()

    @property
    def state(self) -> str:
        """READY, RUNNING or FINISHED."""
        if self.process is None:
            return "READY"
        return "RUNNING" if self.process.poll() is None else "FINISHED"

    def _get_outcome_and_result(self) -> tuple[str, Any]:
        path = self.paths.result_pickle
        if not path.exists():
            code = self.process.poll() if self.process else None
            raise utils.UncompletedJobError(
                f"task {self.job_id} ended with status {code} and left no result; "
                f"see {self.paths.stderr}"
            )
        # Written by the process that we started ourselves, in our own directory.
        outcome: tuple[str, Any] = pickle.loads(path.read_bytes())
        return outcome


class CappedExecutor(core.Executor):
    """Runs submitted calls as local processes, at most ``jobs`` at a time.

    ``environment`` is added to the processes' environment. Use ``submit``,
    ``map_array`` and ``batch`` as with any submitit executor.
    """

    job_class = LocalJob

    def __init__(
        self,
        folder: Path | str,
        *,
        jobs: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        super().__init__(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._jobs = jobs or os.cpu_count() or 1
        self._environment = {**os.environ, **(environment or {})}
        self._waiting: deque[LocalJob] = deque()
        self._running: list[subprocess.Popen[bytes]] = []
        self._submitted = 0
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def _internal_process_submissions(
        self, delayed_submissions: list[utils.DelayedSubmission]
    ) -> list[core.Job[Any]]:
        jobs: list[core.Job[Any]] = []
        for submission in delayed_submissions:
            job = LocalJob(self, str(self._submitted))
            self._submitted += 1
            call = (submission.function, submission.args, submission.kwargs)
            job.paths.submitted_pickle.write_bytes(cloudpickle.dumps(call))
            self._waiting.append(job)
            jobs.append(job)
        self.pump()
        return jobs

    def pump(self) -> None:
        """Start waiting tasks while fewer than the cap are alive."""
        self._running = [process for process in self._running if process.poll() is None]
        while self._waiting and len(self._running) < self._jobs:
            job = self._waiting.popleft()
            process = self.processes[job.job_id] = self._start(job)
            self._running.append(process)

    def forget(self, job: LocalJob) -> None:
        """Take a task that has not started out of the queue."""
        self._waiting = deque(other for other in self._waiting if other.job_id != job.job_id)

    def _start(self, job: LocalJob) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-P", "-m", "launcher.core.local_task"]
        paths = [str(job.paths.submitted_pickle), str(job.paths.result_pickle)]
        with job.paths.stdout.open("ab") as out, job.paths.stderr.open("ab") as err:
            return subprocess.Popen(
                [*argv, *paths],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=self._environment,
                preexec_fn=die_with_parent,
            )
