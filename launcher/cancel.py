"""Ending a run: one scancel for all its stages, or the end of its launcher here."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from launcher import child, sites, status
from launcher.core.errors import RefusedError, RemoteError
from launcher.core.runs import RunDir
from launcher.judges import LIVE, Task, launcher_of
from launcher.status import RunStatus
from launcher.submit.slurm import job_prefix

PATIENCE_S = 120.0
"""A launcher that is asked to end lets its tasks save first."""
SCANCEL_S = 60.0


@dataclass(frozen=True)
class Cancelled:
    """What was asked to end and what had ended before."""

    jobs: list[str]
    tasks: int
    over: int


def cancel(run: RunDir) -> Cancelled:
    """End everything of ``run`` that waits or runs, and what a launcher would still submit.

    Raises RefusedError RDTL-S035 for another user's run and RemoteError RDTL-S032 or
    RDTL-S039 when the scheduler does not do it.
    """
    child.require_own(run, "cancel")
    one = status.of(run, fresh=True)
    _require_answer(run, one.note)
    total = sum(one.counts.values())
    if one.kind == "slurm":
        tasks = _forbid(one)
        return Cancelled(_scancel(one), tasks, total - tasks)
    tasks = one.counts["running"] + one.counts["waiting"]
    jobs = _end_launcher(run) if one.ends_with_launcher else []
    return Cancelled(jobs, tasks if jobs else 0, total - tasks)


def _require_answer(run: RunDir, note: str) -> None:
    if note:
        raise RemoteError(
            "RDTL-S032",
            "the scheduler does not answer, so no job was cancelled",
            where=note,
            fix=f"run the same command again later: rdtl runs cancel {run.root}",
        )


def _forbid(one: RunStatus) -> int:
    """Record of each attempt that is ended who did it: no launcher sends more of it; its tasks.

    Comes before the last look at the queue: what a launcher sends after that, it ends itself.
    """
    tasks = 0
    for stage in one.stages:
        name = stage.stage.name
        unsent = {(a.number, i) for a in one.markers.attempts(name) for i in a.unsent()}
        ending = [task for task in stage.tasks if _ends(task, (task.attempt, task.index) in unsent)]
        for attempt in {task.attempt for task in ending}:
            by = getpass.getuser()
            one.run.ledger.publish(f"cancelled.{name}.a{attempt}", by=by, ids=stage.jobs())
        tasks += len(ending)
    return tasks


def _ends(task: Task, unsent: bool) -> bool:
    """Whether it is alive, or a launcher may still send it."""
    return task.state in LIVE or (unsent and task.state in ("gone", "unsubmitted"))


def _scancel(one: RunStatus) -> list[str]:
    """One call for all jobs in the queue, known by their names: nobody may have recorded an id,
    and a controller that lost its state gives one a second time."""
    site = sites.of_run(one.run, one.plan.site)
    controller = status.controller_for(one.run, site.environment)
    queue = controller.snapshot(fresh=True)
    _require_answer(one.run, queue.error)
    jobs = sorted({row.job for row in queue.rows if row.name.startswith(job_prefix(one.run))})
    if not jobs:
        return []
    done = controller.call(["scancel", *jobs], SCANCEL_S)
    controller.forget()
    if isinstance(done, str):
        raise RemoteError(
            "RDTL-S039",
            "scancel did not do it; some jobs may live on",
            where=" ".join(done.split())[-300:],
            fix=f"rdtl runs show {one.run.root} says what is alive; cancel again is safe",
        )
    return jobs


def _holds(pid: int, run: RunDir) -> bool:
    """Whether this process has the run's lock open: a number of another machine means nothing."""
    lock = run.root / "launcher.lock"
    try:
        handles = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it has ended, or is not ours
        return False
    for handle in handles:
        with contextlib.suppress(OSError):  # closed while we looked
            if handle.readlink() == lock:
                return True
    return False


def _end_launcher(run: RunDir) -> list[str]:
    """Ask the launcher to end; its tasks save and end with it. Returns what was ended."""
    pid = launcher_of(run)
    if pid is None:
        return []
    here = _holds(pid, run)
    if here:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + (PATIENCE_S if here else 0)
    while launcher_of(run) is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    if launcher_of(run) is None:
        return [f"process {pid}"]
    raise RefusedError(
        "RDTL-S039",
        "the launcher of this run does not end",
        where=f"{run.root / 'launcher.lock'} is held",
        why="it runs on another machine, or belongs to a process that cannot be signalled",
        fix="press Ctrl-C where it runs",
    )
