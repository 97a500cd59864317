"""The run directory on a box: paths, states of steps, events, and room for them on a full disk.

::

    RUN/dag.json             the graph; written by the client before the runner starts
    RUN/lock                 held (flock) while a runner runs
    RUN/runner.json          which process that is, and the token that its steps inherit
    RUN/events.jsonl         what happened, a line each, numbered; events.1.jsonl holds older ones
    RUN/rc                   exit code of the last runner that came to its end
    RUN/reserve              bytes given free when the disk is full, so that the rest can be written
    RUN/steps/NAME/          state.json, log, log.1 (older part), check.log
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.core import dag, dag_processes, dag_reading, files

EVENTS_BYTES = 8 << 20
RESERVE_BYTES = 256 << 10


@dataclass(frozen=True)
class BoxRun:
    """Paths of one run directory, and what can be read there at any time."""

    root: Path

    @property
    def graph(self) -> Path:
        return self.root / "dag.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def runner(self) -> Path:
        return self.root / "runner.json"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def older_events(self) -> Path:
        return self.root / "events.1.jsonl"

    @property
    def rc(self) -> Path:
        return self.root / "rc"

    @property
    def reserve(self) -> Path:
        return self.root / "reserve"

    def step(self, name: str) -> Path:
        """Folder of a step."""
        return self.root / "steps" / name

    def state(self, name: str) -> dict[str, Any]:
        """What is known of a step; empty when it never began or its file is damaged."""
        return _read(self.step(name) / "state.json")

    def load(self) -> dag.Graph:
        """The graph; UsageError RDTL-B051 when it cannot run, OSError when it is not there."""
        try:
            data = files.read_json(self.graph)
        except json.JSONDecodeError as error:
            data = {"name": f"{self.graph} ({error})"}
        return dag_reading.from_dict(data)

    def owner(self) -> dag_processes.Process | None:
        """The runner's process, if it lives."""
        process = dag_processes.from_dict(_read(self.runner).get("process"))
        return process if process and process.alive() else None

    def held(self) -> bool:
        """Whether a runner is at work, also on another node, whose processes nobody sees here."""
        try:
            with self.lock.open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def told(self, after: int = 0) -> list[dict[str, Any]]:
        """Events with larger numbers than ``after``, in their order."""
        found: list[dict[str, Any]] = []
        for path in (self.older_events, self.events):
            with contextlib.suppress(FileNotFoundError):
                found += parsed(files.read_whole_lines(path)[0])
        return [event for event in found if event["seq"] > after]


def _read(path: Path) -> dict[str, Any]:
    try:
        data = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def parsed(lines: list[str]) -> Iterator[dict[str, Any]]:
    """Events of lines; a line that a power cut damaged is left out."""
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            event = json.loads(line)
            if isinstance(event, dict) and "seq" in event:
                yield event


def is_full(error: OSError) -> bool:
    """Whether the disk or the quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


class Recorder:
    """The runner's pen: events and states, from all its threads, also on a full disk."""

    def __init__(self, run: BoxRun) -> None:
        self.run = run
        self.lock = threading.Lock()
        self.pending: list[str] = []
        known = run.told()
        self.seq = known[-1]["seq"] if known else 0
        with contextlib.suppress(OSError):
            if not run.reserve.exists():
                run.reserve.write_bytes(os.urandom(RESERVE_BYTES))  # zeros may take no room
        self.descriptor = self._open()

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self.run.events, flags, 0o644)
        if self.run.events.stat().st_size and files.read_whole_lines(self.run.events)[1]:
            os.write(descriptor, b"\n")  # a torn line must not swallow the next one
        return descriptor

    def tell(self, event: str, **data: Any) -> None:
        """Append an event; one that finds no room waits for the next."""
        with self.lock:
            self.seq += 1
            line = {"seq": self.seq, "at": round(time.time(), 3), "event": event, **data}
            self.pending.append(json.dumps(line, ensure_ascii=False) + "\n")
            with contextlib.suppress(OSError):
                self._with_room(self._write)

    def _write(self) -> None:
        while self.pending:
            data = self.pending[0].encode()
            written = os.write(self.descriptor, data)
            if written < len(data):
                os.ftruncate(self.descriptor, os.fstat(self.descriptor).st_size - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.run.events))
            self.pending.pop(0)
        if os.fstat(self.descriptor).st_size > EVENTS_BYTES:
            os.close(self.descriptor)
            self.run.events.replace(self.run.older_events)
            self.descriptor = self._open()

    def _with_room(self, write: Any) -> None:
        try:
            write()
        except OSError as error:
            if not is_full(error) or not self.run.reserve.exists():
                raise
            self.run.reserve.unlink()
            write()

    def save(self, name: str, **state: Any) -> None:
        """Replace a step's state, on disk when this returns. OSError when there is no room."""
        path = self.run.step(name) / "state.json"
        self._with_room(lambda: files.write_json(path, state))

    def note(self, name: str, **state: Any) -> None:
        """The same for what a power cut makes untrue anyway: whole, but not forced to disk."""
        path = self.run.step(name) / "state.json"
        temporary = path.with_name("state.json.part")
        self._with_room(lambda: temporary.write_text(files.dump_json(state), encoding="utf-8"))
        temporary.replace(path)

    def close(self, rc: int) -> None:
        """The end of a runner."""
        with contextlib.suppress(OSError):
            self._with_room(lambda: files.write_text(self.run.rc, f"{rc}\n"))
        os.close(self.descriptor)


class Silent:
    """In the place of a :class:`Recorder` where one only looks."""

    def tell(self, event: str, **data: Any) -> None:
        """Tells nobody."""

    def save(self, name: str, **state: Any) -> None:
        """Keeps nothing."""

    def note(self, name: str, **state: Any) -> None:
        """Keeps nothing."""
