"""Ends a process whose simulator never comes back (RDTL-E033): ``python -m jobs.watch RUN_DIR FD``.

A renderer or a library may wait for ever with Python's lock in its hand, so no thread of its
process would notice: a program beside it does (:class:`Watch` starts it). It counts the time in
which both were awake, so nothing hangs because a scheduler suspends the job. When an episode's
limit is over, it writes the record that the process itself cannot write any more: the try counts
like any other. Then it ends the process, which tells its stacks while it dies. The look at a
node's simulator before the episodes has a limit, too, and no record.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.errors import RdtlError
from launcher.core.job import Job, die_with_parent
from rdt.spec import record as records
from rdt.spec.record import Record

STDIN, STDERR = 0, 2
TICK_S = 0.25
LEAP_S = 2.0
"""So much later than expected, the counter was stopped itself: that counts as one tick."""
DEADLY = signal.SIGALRM
"""Ends the process; it must have no other use there, and a core of gigabytes helps nobody."""
GRACE_S = 10.0
CLOCK = struct.Struct("d")
LOOK = "the look at this node's simulator never came back"
AGAIN = (
    "run the same command again: it goes on with what is missing, with this episode "
    "last; if episodes are that slow, raise evaluate.episode_minutes"
)
ELSEWHERE = (
    "run the same command again, another node may answer; on this one, environment: {MUJOCO_GL: "
    "osmesa, PYOPENGL_PLATFORM: osmesa} in the site's file draws without a driver"
)


class Watch:
    """The other end: says when an episode begins and ends, and how long it was awake."""

    def __init__(self, job: Job, limit_s: float) -> None:
        self._argv = [sys.executable, "-P", "-m", __name__, str((job.outer or job.run).root)]
        self._limit = limit_s
        self._shared = os.memfd_create("rdtl-awake")
        os.ftruncate(self._shared, CLOCK.size)
        self._clock = mmap.mmap(self._shared, CLOCK.size)
        self._beside: subprocess.Popen[bytes] | None = None
        faulthandler.register(DEADLY, file=STDERR, chain=True)

    def awake(self) -> float:
        """Seconds since some moment in which this process was not stopped."""
        (seconds,) = CLOCK.unpack(self._clock)
        return float(seconds)

    def over(self, record: Record, part: Path) -> AbstractContextManager[None]:
        """An episode; should it not come back within the limit, ``part`` will hold ``record``."""
        return self._over({"part": str(part), "line": record.line()})

    def over_look(self) -> AbstractContextManager[None]:
        """The look at this node's simulator, of which no record speaks."""
        return self._over({})

    @contextlib.contextmanager
    def _over(self, said: dict[str, str]) -> Iterator[None]:
        self._tell({"limit_s": self._limit, **said})
        try:
            yield
        finally:
            self._tell(None)

    def close(self) -> None:
        """No episode follows."""
        if self._beside is not None:
            self._beside.communicate()
        self._clock.close()
        os.close(self._shared)
        faulthandler.unregister(DEADLY)

    def _tell(self, watched: dict[str, Any] | None) -> None:
        if self._beside is None or self._beside.poll() is not None:
            self._beside = subprocess.Popen(
                [*self._argv, str(self._shared)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[self._shared],
            )
        assert self._beside.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it was killed: the next time it is started
            self._beside.stdin.write(json.dumps(watched).encode() + b"\n")


def main(run_dir: str, descriptor: str) -> None:
    """Watch the process that started this until it ends, or what it does there does not."""
    die_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # said to the whole job, which finishes its episode
    parent = os.getppid()
    watched = overdue(parent, mmap.mmap(int(descriptor), CLOCK.size))
    if watched is not None:
        end(parent, Job.from_environment(run_dir), watched)


def overdue(parent: int, clock: mmap.mmap) -> dict[str, Any] | None:
    """What ``parent`` does beyond its limit; None when ``parent`` needs nobody any more.

    Adds to ``clock`` the seconds in which neither of the two was stopped.
    """
    watched: dict[str, Any] | None = None
    rest, began = b"", 0.0
    (awake,) = CLOCK.unpack(clock)
    last = time.monotonic()
    while watched is None or awake - began < watched["limit_s"]:
        said = select.select([STDIN], [], [], TICK_S)[0]
        now = time.monotonic()
        if not stopped(parent):
            awake += now - last if now - last < LEAP_S else TICK_S
            clock[:] = CLOCK.pack(awake)
        last = now
        if said:
            if not (data := os.read(STDIN, 1 << 16)):
                return None
            *whole, rest = (rest + data).split(b"\n")
            if whole:
                watched, began = json.loads(whole[-1]), awake
    return watched


def stopped(pid: int) -> bool:
    """Whether a signal or a debugger holds the process."""
    text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return text.rpartition(")")[2].split()[0] in "Tt"  # the name before may hold anything


def end(parent: int, job: Job, watched: dict[str, Any]) -> None:
    """Publish the record of an episode, unless a newer attempt took over, and end ``parent``."""
    record = records.parse(watched["line"]) if "line" in watched else None
    print(f"{record.key.text()}: {record.error}" if record else LOOK, file=sys.stderr)
    try:
        if not job.fenced():
            if record:
                files.append_line(files.open_new(Path(watched["part"])), record.line())
            leave(record)
    except OSError as error:  # such as a full disk
        print(f"this try is not written down: {error}", file=sys.stderr)
    finally:
        limit = timedelta(seconds=watched["limit_s"])
        print(f"Timeout ({limit})!", file=sys.stderr, flush=True)
        os.kill(parent, DEADLY)
        time.sleep(GRACE_S)  # this process dies with its parent
        os.kill(parent, signal.SIGKILL)


def leave(record: Record | None) -> None:
    """Tell the launcher what :func:`launcher.core.job.run_job` can tell no more."""
    error = RdtlError(
        "RDTL-E033",
        f"episode {record.key.text()} never came back" if record else LOOK,
        where=f"{socket.gethostname()}; the log has the stacks of all its threads",
        why="the simulator or the policy waits for something that does not come",
        fix=AGAIN if record else ELSEWHERE,
    )
    if path := os.environ.get("RDTL_ERROR_FILE"):
        files.write_json(Path(path), {**error.to_dict(), "exit_status": 128 + DEADLY})


if __name__ == "__main__":
    main(*sys.argv[1:])
