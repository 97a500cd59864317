"""What a program on a node knows of its place: the other end of ``jobs.node``.

A job is ``python -m jobs.NAME RUN_DIR``. Its place in the plan arrives in the
environment (``RDTL_STAGE``, ``RDTL_INDEX``, …), so that the same program runs
alone by hand. :func:`run_job` is the one place that turns errors into an exit
status and leaves the structured error for the launcher.
"""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from launcher.core import files
from launcher.core.errors import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_REQUEUE,
    EXIT_SAVED,
    LostError,
    RdtlError,
    full_disk,
)
from launcher.core.runs import RunDir

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Job:
    """One task of one stage: where it runs and what it may read."""

    run: RunDir
    config: dict[str, Any]
    stage: str
    index: int
    count: int
    attempt: int
    node: int
    restart: int = 0
    outer: RunDir | None = None
    """The run whose task this is, when `run` is a directory inside it."""

    def inside(self, run: RunDir, config: dict[str, Any]) -> Job:
        """The same task, at work on ``run`` inside its own run."""
        return replace(self, run=run, config=config, outer=self.outer or self.run)

    @classmethod
    def from_environment(cls, run_dir: str) -> Job:
        """Read the place from the environment; alone by hand it is task 0 of 1, attempt 0."""
        run = RunDir(Path(run_dir).resolve())
        plan = files.read_json(run.plan)
        get = os.environ.get
        return cls(
            run=run,
            config=plan["config"],
            stage=get("RDTL_STAGE", "manual"),
            index=int(get("RDTL_INDEX", "0")),
            count=int(get("RDTL_COUNT", "1")),
            attempt=int(get("RDTL_ATTEMPT", "0")),
            node=int(get("RDTL_NODE", "0")),
            restart=int(get("RDTL_RESTART", "0")),
        )

    def progress(self, done: int, total: int, unit: str, text: str = "") -> None:
        """Publish how far this task is; cheap enough for every episode or second."""
        files.write_json(
            (self.outer or self.run).progress(self.stage, self.index),
            {
                "index": self.index,
                "done": done,
                "total": total,
                "unit": unit,
                "text": text,
                "at": time.time(),
            },
        )

    @property
    def round(self) -> str:
        """Names what this start writes before it is published: ``a2``, or ``a2r1`` after a requeue.

        A node that was given up may still be writing under the name of the round before.
        """
        return f"a{self.attempt}" + (f"r{self.restart}" if self.restart else "")

    def fenced(self) -> bool:
        """Whether a newer attempt or restart of this task exists: then publish nothing any more."""
        ledger = (self.outer or self.run).ledger
        if ledger.newest_attempt(self.stage, self.index) > self.attempt:
            return True
        return ledger.current_restart(self.stage, self.index, self.attempt) > self.restart

    @property
    def asked_to_stop(self) -> int | None:
        """SIGUSR2 (requeue) or SIGTERM (end) when one came since the start, else None.

        USR2 wins: it says that the scheduler will let the job continue.
        """
        return next((n for n in (signal.SIGUSR2, signal.SIGTERM) if n in _received), None)

    def may_stop_here(self) -> None:
        """Raise :class:`Stopped` when a signal asked for it; call it where all is published."""
        number = self.asked_to_stop
        if number is not None:
            raise Stopped(number)


class Stopped(Exception):  # noqa: N818  it is no error: the state is saved
    """Raised by a job that has saved its state because ``job.asked_to_stop`` was set."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = EXIT_REQUEUE if number == signal.SIGUSR2 else EXIT_SAVED


_received: set[int] = set()


def remember_signals() -> None:
    """From now on USR2 and TERM are remembered instead of ending the process.

    The handler does nothing else: a signal may come twice, or inside any call.
    """
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda n, frame: _received.add(n))


def die_with_parent() -> None:
    """Ask the kernel (Linux) to kill this process when its parent dies.

    A launcher that is killed must leave nobody behind who goes on writing
    while the next launcher continues the run.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def begin_worker() -> None:
    """In a process of a pool: end with its parent, also with one that ended meanwhile.

    It would wait for work for ever: it holds both ends of the queue itself.
    """
    die_with_parent()
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        os._exit(EXIT_FAILED)


def run_job(body: Callable[[Job], None]) -> None:
    """Run ``body`` for ``sys.argv[1]``; exit 0, or the error's status with its JSON left behind.

    A body that raises :class:`Stopped` ends with 85 or 86.
    """
    die_with_parent()
    remember_signals()
    job = Job.from_environment(sys.argv[1])
    if "RDTL_STARTED" in os.environ:
        seconds = time.time() - float(os.environ["RDTL_STARTED"])
        print(f"start-up: {seconds:.2f} s from the node task to the job", file=sys.stderr)
    try:
        body(job)
    except Stopped as stopped:
        print(f"stopped by {stopped}: what is finished is saved", file=sys.stderr, flush=True)
        _end(stopped.exit_status)
    except RdtlError as error:
        leave(error)
    except OSError as error:
        known = full_disk(error, f"stage {job.stage} was writing")
        if known is None:
            raise
        leave(known)
    _end(EXIT_OK)


def _end(status: int) -> NoReturn:
    """Exit without tearing down native libraries: everything is published, nothing is left to do.

    Threads of torch have aborted a finished rank while the interpreter was going away
    (exit code 134), and that ended the whole job as failed.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def leave(error: RdtlError) -> NoReturn:
    """End this process with an error, from any thread: said, and left behind for the launcher.

    The ranks of a node share one place for it: that others were lost replaces no cause.
    """
    print(error, file=sys.stderr, flush=True)
    path = os.environ.get("RDTL_ERROR_FILE")
    if path and not (isinstance(error, LostError) and Path(path).exists()):
        try:
            files.write_json(Path(path), error.to_dict())
        except OSError as second:  # the disk may be full: the log still holds the message
            print(f"could not write {path}: {second}", file=sys.stderr)
    _end(error.exit_status)
