"""Daemons that are recorded before they run, and ended by that record only.

A record holds process id, start time and the machine's boot, so a number that
the kernel has given to somebody else is never signalled. It is written by the
child between fork and exec: a daemon that lives is recorded, whatever killed
its starter and when.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster.layout import ClusterError, write_whole

POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Record:
    """One process, unmistakably: ``start`` is in clock ticks since ``boot``."""

    pid: int
    start: int
    boot: str

    @property
    def alive(self) -> bool:
        """Whether this very process runs; a zombie does not."""
        status = _status(self.pid)
        return (
            status is not None
            and status.state != "Z"
            and (status.start, _boot()) == (self.start, self.boot)
        )


@dataclass(frozen=True)
class _Status:
    state: str
    session: int
    start: int


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _status(pid: int) -> _Status | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold anything
    return _Status(state=fields[0], session=int(fields[3]), start=int(fields[19]))


def start(name: str, argv: list[str], records: Path, log: Path, env: dict[str, str]) -> None:
    """Start ``argv`` as the leader of a new session, recorded as ``records``/NAME.json."""

    def record() -> None:
        status = _status(os.getpid())
        assert status is not None
        own = Record(os.getpid(), status.start, _boot())
        write_whole(records / f"{name}.json", json.dumps(asdict(own)) + "\n")

    with log.open("ab") as output:
        subprocess.Popen(  # record runs in the child; this program has no threads to upset it
            argv,
            env=env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=record,
        )


def recorded(records: Path) -> dict[str, Record]:
    """All records by name; empty when there is no such directory."""
    return {
        path.stem: Record(**json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(records.glob("*.json"))
    }


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll ``condition``; raises ClusterError naming ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {seconds:g} s")
        time.sleep(POLL_SECONDS)


def stop(records: Iterable[Record], seconds: float = 5) -> None:
    """TERM to all at once, KILL after ``seconds``; children in their sessions end with them."""
    living = [record for record in records if record.alive]
    for record in living:
        _signal(record.pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while any(record.alive for record in living) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    sessions = {record.pid for record in living}
    kill([pid for pid in all_pids() if _session(pid) in sessions])


def kill(pids: list[int], seconds: float = 5) -> None:
    """KILL ``pids`` and wait until none of them runs; raises ClusterError when one stays."""
    for pid in pids:
        _signal(pid, signal.SIGKILL)
    wait_until(lambda: not any(_running(pid) for pid in pids), seconds, f"end of {pids}")


def all_pids() -> list[int]:
    """Every process id of the machine."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def memory_mb(pid: int) -> float:
    """Proportional memory of ``pid`` in MB; shared pages are divided among their users."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    kilobytes = next(line.split()[1] for line in text.splitlines() if line.startswith("Pss:"))
    return int(kilobytes) / 1024


def _session(pid: int) -> int:
    status = _status(pid)
    return status.session if status else 0


def _running(pid: int) -> bool:
    status = _status(pid)
    return status is not None and status.state != "Z"


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
