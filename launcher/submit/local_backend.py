"""The local site: stages of a run as processes of this machine."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path
from typing import IO, cast

from jobs.node import NodeTask, run_task
from launcher import sites
from launcher.arrays import Part
from launcher.core.errors import RefusedError
from launcher.core.plan import Stage
from launcher.core.runs import RunDir
from launcher.submit.local import CappedExecutor, LocalJob

LOCK_WAIT_S = 20.0


class LocalBackend:
    """Runs stages here, a stage's tasks at most as many at once as cores and memory carry."""

    poll_s = 0.25
    submits_ahead = False

    def __init__(self, run: RunDir, site: sites.Site, jobs: int | None) -> None:
        self._run = run
        self._site = site
        self._wanted = jobs
        self._jobs: dict[str, LocalJob] = {}
        self._lock = lock_run(run)
        # Asked to end (`rdtl runs cancel`, a shutdown): as Ctrl-C, so that tasks can save.
        signal.signal(signal.SIGTERM, signal.default_int_handler)

    def part_size(self, stage: Stage) -> int | None:
        """No limit: the executor has a queue of its own."""
        return None

    def room(self, tasks: int) -> bool:
        """Always: as above."""
        return True

    def submit(self, stage: Stage, part: Part, after: list[str]) -> list[str] | None:
        """Queue the tasks; the executor starts as many as its cap allows."""
        attempt = part.attempt
        executor = CappedExecutor(
            self._run.root / "local" / stage.name / f"attempt_{attempt}",
            jobs=sites.local_jobs(self._site, stage.memory_mb, self._wanted),
            environment={"PYTHONPATH": str(self._run.code), "PYTHONSAFEPATH": "1"},
        )
        tasks = [NodeTask(str(self._run.root), stage.name, i, attempt) for i in part.indices]
        ids = [f"{stage.name}.a{attempt}.{task.index}" for task in tasks]
        jobs = cast("list[LocalJob]", executor.map_array(run_task, tasks))
        self._jobs.update(zip(ids, jobs, strict=True))
        return ids

    def find(self, part: Part, began: float) -> list[str] | None:
        """Nothing outlives the launcher here: tasks die with the process that started them."""
        return []

    def alive(self, ids: list[str]) -> set[str] | None:
        """Those of ``ids`` that wait or run."""
        return {id_ for id_ in ids if id_ in self._jobs and not self._jobs[id_].done()}

    def ended(self, ids: list[str], since: float) -> str:
        """Nothing that the tasks' own markers do not say better."""
        return ""

    def wait_for(self, ids: list[str], parents: list[str]) -> bool:
        """Nothing waits here: a stage is started when those that it needs have ended."""
        return True

    def cancel(self, ids: list[str]) -> None:
        """Ask the tasks to end and wait until they have; each may save first."""
        ending = [self._jobs[id_] for id_ in ids if id_ in self._jobs]
        for job in ending:
            job.cancel(check=False)
        for job in ending:
            if job.process:  # else it never began
                job.process.wait()


def lock_run(run: RunDir) -> IO[str]:
    """Hold the run directory for this process; two launchers must not drive one run.

    A launcher that was just killed may leave tasks that die this very moment, so
    wait a little before refusing with RDTL-U012.
    """
    path = Path(run.root) / "launcher.lock"
    handle = path.open("a+")
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise RefusedError(
                    "RDTL-U012",
                    "another rdtl drives this run",
                    where=f"{path}: {_owner(path)}",
                    why="two launchers would start every stage twice",
                    fix="wait for it, or stop it with Ctrl-C; the run then continues where it was",
                ) from None
            time.sleep(0.2)
    handle.truncate(0)
    handle.write(f"process {os.getpid()}\n")
    handle.flush()
    return handle


def _owner(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip() or "unknown process"
