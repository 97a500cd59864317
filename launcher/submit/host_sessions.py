"""A stage task that runs on hosts of a list: one ssh process for each host, tied together.

What :mod:`jobs.host_task` does is the other end. A host that fails or is lost ends
the task on the others, because they would wait for it for ever.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.host_task import ALIVE, SIGNALS
from launcher.core.errors import EXIT_REQUEUE, EXIT_SAVED, RdtlError
from launcher.core.job import die_with_parent
from launcher.core.runs import RunDir
from launcher.ssh import Connection

HEARTBEAT_S = 5.0
SILENCE_S = 300.0
"""After so long without a heartbeat a host kills the task: the launcher's machine has died."""
PATIENCE_S = 60.0
"""How long a task may take to save after it was asked to end."""
LETTER = {int(number): letter for letter, number in SIGNALS.items()}


class Session:
    """One node of a task: its ssh process, whose standard input is order and lifeline."""

    def __init__(self, connection: Connection, command: list[str], order: bytes, log: Path) -> None:
        self.host = connection.host
        self.log = log
        self.dropped = False
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                connection.argv(command),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for the launcher, which lets tasks save
                preexec_fn=die_with_parent,
            )
        self.say(order)

    def say(self, words: bytes) -> None:
        """Send bytes; nothing when the process is gone, which its exit code tells."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(words)
            self.process.stdin.flush()

    def drop(self) -> None:
        """End the connection; the host kills what it runs for us."""
        self.dropped = True
        self.process.kill()


@dataclass(frozen=True)
class Name:
    """Which task: stage, index, attempt."""

    stage: str
    index: int
    attempt: int


class HostTask:
    """One task on its hosts, from the start to the last exit code."""

    def __init__(self, run: RunDir, name: Name, sessions: Sequence[Session]) -> None:
        self._run = run
        self._name = name
        self._sessions = list(sessions)
        self._asked_at: float | None = None
        self._heartbeat = time.monotonic()

    def alive(self) -> bool:
        """Whether any host still works at it; ends the others when one has failed."""
        ended = [s for s in self._sessions if s.process.poll() is not None]
        if any(s.process.returncode not in (0, EXIT_REQUEUE, EXIT_SAVED) for s in ended):
            self.signal(SIGNALS[b"T"])
        now = time.monotonic()
        if self._asked_at is not None and now - self._asked_at > PATIENCE_S:
            for session in self._pending():
                session.drop()
        if now - self._heartbeat > HEARTBEAT_S:
            self._heartbeat = now
            for session in self._pending():
                session.say(ALIVE)
        if len(ended) < len(self._sessions):
            return True
        self._record_lost()
        return False

    def wait(self) -> None:
        """Block until every host has ended."""
        while self.alive():
            time.sleep(0.05)

    def _pending(self) -> list[Session]:
        return [s for s in self._sessions if s.process.poll() is None]

    def signal(self, number: int) -> None:
        """Pass a signal on to every host; one that ends is passed on once."""
        if number in (SIGNALS[b"T"], SIGNALS[b"I"]):
            if self._asked_at is not None:
                return
            self._asked_at = time.monotonic()
        for session in self._pending():
            session.say(LETTER[number])

    def _record_lost(self) -> None:
        """Leave the marker that a node could not leave itself; one that it left stays."""
        for node, session in enumerate(self._sessions):
            code = session.process.returncode
            if code == 0:
                continue
            name = self._name
            self._run.ledger.publish(
                f"finished.{name.stage}.i{name.index}.n{node}.a{name.attempt}.r0",
                exit_code=128 - code if code < 0 else code,
                error=None if session.dropped else lost(name.stage, session).to_dict(),
                host=session.host,
            )


def lost(stage: str, session: Session) -> RdtlError:
    """RDTL-S056: a host ended without saying how."""
    words = " ".join(session.log.read_text(errors="replace").split())[-300:]
    return RdtlError(
        "RDTL-S056",
        f"host {session.host} was lost while stage {stage} ran",
        where=f"ssh ended with {session.process.returncode}: {words}",
        why="it went down, its network did, or its sshd was ended; the task was ended on the "
        "other hosts, and every complete checkpoint is kept",
        fix="rdtl doctor --site says whether it is back; the same command then continues",
    )
