"""Ending a run: one scancel for all its stages, or the end of its launcher here."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from launcher import child, sites, status
from launcher.core.errors import RefusedError, RemoteError
from launcher.core.runs import RunDir
from launcher.judges import LIVE, Task, launcher_of
from launcher.status import RunStatus

PATIENCE_S = 120.0
"""A launcher that is asked to end lets its tasks save first."""


@dataclass(frozen=True)
class Cancelled:
    """What was asked to end and what had ended before."""

    jobs: list[str]
    tasks: int
    over: int


def cancel(run: RunDir) -> Cancelled:
    """End everything of ``run`` that waits or runs.

    Raises RefusedError RDTL-S035 for another user's run and RemoteError RDTL-S032 or
    RDTL-S039 when the scheduler does not do it.
    """
    child.require_own(run, "cancel")
    one = status.of(run, fresh=True)
    if one.note:
        raise RemoteError(
            "RDTL-S032",
            "the scheduler does not answer, so nothing was cancelled",
            where=one.note,
            fix=f"run the same command again later: rdtl runs cancel {run.root}",
        )
    jobs = sorted({job for stage in one.stages for job in stage.jobs()})
    tasks = one.counts["running"] + one.counts["waiting"]
    if one.kind in ("local", "hosts"):
        jobs = _end_launcher(run)
    elif jobs:
        _scancel(one, jobs)
    return Cancelled(jobs, tasks if jobs else 0, sum(one.counts.values()) - tasks)


def _scancel(one: RunStatus, jobs: list[str]) -> None:
    """One call for all; recorded before, so that everybody can say later who did it."""
    for stage in one.stages:
        for attempt in {task.attempt for task in stage.tasks if task.attempt and _ends(task)}:
            name = f"cancelled.{stage.stage.name}.a{attempt}"
            one.run.ledger.publish(name, by=getpass.getuser(), ids=stage.jobs())
    site = sites.of_run(one.run, one.plan.site)
    controller = status.controller_for(one.run, site.environment)
    done = subprocess.run(
        ["scancel", *jobs],
        env=controller.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    controller.forget()
    if done.returncode:
        raise RemoteError(
            "RDTL-S039",
            "scancel reports an error; some jobs may live on",
            where=" ".join(done.stderr.split())[:300],
            fix=f"rdtl runs show {one.run.root} says what is alive; cancel again is safe",
        )


def _ends(task: Task) -> bool:
    """Whether it is alive, or would be sent later."""
    return task.state in (*LIVE, "unsubmitted")


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
