"""Processes of steps and tasks: who they are, also after a reboot, and how all of them end.

A process id alone says nothing: it may belong to another process by now, above all in a
container that was started again. The time of its start (clock ticks since boot) together
with the boot's id does. What a killed runner left is found by a variable that all its steps
inherit, and by the session of each step.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKEN = "RDTL_RUNNER_TOKEN"
TASK = "RDTL_TASK"
"""The variable of a node task's processes."""
GRACE_S = 10.0
"""How long a step may take to end after SIGTERM; then it is killed."""


@dataclass(frozen=True)
class Process:
    """One process, for all time."""

    pid: int
    start_time: int
    boot_id: str

    def alive(self) -> bool:
        """Whether this very process, not another one of its number, is there."""
        return self.boot_id == boot_id() and _stat(self.pid).get("start_time") == self.start_time


def of(pid: int) -> Process:
    """The process that has this number now; start time 0 when there is none."""
    return Process(pid, _stat(pid).get("start_time", 0), boot_id())


def from_dict(data: Any) -> Process | None:
    """The process of its JSON form, or None for anything else."""
    try:
        return Process(int(data["pid"]), int(data["start_time"]), str(data["boot_id"]))
    except (KeyError, TypeError, ValueError):
        return None


def boot_id() -> str:
    """Another text after each boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _stat(pid: int) -> dict[str, int]:
    """Parent, session and start time of a living process; empty when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    if fields[0] in "ZX":
        return {}
    return {"parent": int(fields[1]), "session": int(fields[3]), "start_time": int(fields[19])}


def strays(token: str, leaders: Iterable[Process], variable: str = TOKEN) -> list[int]:
    """Living processes that steps of the runner ``token`` started, or that have it in
    ``variable``."""
    sessions = {leader.pid for leader in leaders if leader.alive()}
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            pid = int(entry.name)
            if _stat(pid).get("session") in sessions or _has(pid, variable, token):
                found.append(pid)
    return found


def _has(pid: int, variable: str, token: str) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False  # gone, or another user's
    return f"{variable}={token}".encode() in environment.split(b"\0")


def end_strays(token: str, leaders: Iterable[Process] = ()) -> int:
    """End what somebody left, and wait until it is gone; returns how many there were."""
    known = list(leaders)
    first = found = strays(token, known)
    deadline = time.monotonic() + GRACE_S
    while found:
        _signal_all(found, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
        time.sleep(0.1)
        found = strays(token, known)
    return len(first)


def tell_children(token: str, seen: Sequence[int], grace_s: float) -> None:
    """Pass on to what a node task's ended program left what was asked, and wait for it.

    A program hears each signal of ``seen`` once (SIGTERM when none came): one more would break
    what it saves now. Its own processes are its own affair, as if it had been started alone.
    What is there after ``grace_s`` is killed.
    """
    told: set[tuple[int, int]] = set()
    deadline = time.monotonic() + grace_s
    while found := strays(token, (), TASK):
        if time.monotonic() >= deadline:
            _signal_all(found, signal.SIGKILL)
        for number in set(seen) or {signal.SIGTERM}:
            orphans = {(pid, number) for pid in found if _stat(pid).get("parent") not in found}
            _signal_all((pid for pid, _ in orphans - told), number)
            told |= orphans
        time.sleep(0.1)


def _signal_all(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def signal_group(pid: int, number: int) -> None:
    """Send a signal to all of a step; nothing happens when none is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def ended(pid: int) -> bool:
    """Whether our child has ended. It stays a zombie, so that its group's number stays its own."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
