"""One process of a step under watch: its output, its log, its deadlines, its end.

The process leads a session and a group of its own and has no input. Its output comes
through a pipe, so that nothing reaches a file before secrets are taken out, logs stay
small, and each line is looked at as it comes. All that it started ends with it.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.core import dag, dag_processes
from launcher.core.redaction import Redaction
from launcher.core.signatures import Failure

LOG_BYTES = 16 << 20
LONGEST_LINE = 64 << 10
LINE_END = re.compile(rb"\r?\n|\r(?=[^\n])")
"""A line that ends with \\r is overwritten on a terminal. Only ends are searched for: a pattern
of the whole line needs time with the square of what has no end yet."""
PROGRESS_EVERY_S = 5.0
"""Lines that a program overwrites (progress bars) are kept this often."""
LAST_WORDS_S = 2.0
"""How long a program whose failure was recognised may go on speaking: a traceback has an end."""
TICK_S = 0.2
PIPE_READS = 64
"""A pipe holds no more; a daemon that left the group may go on writing for ever."""


class Log:
    """A process's output on disk: whole redacted lines, at most two files of LOG_BYTES.

    What was there before, of an earlier try, is put aside."""

    def __init__(self, path: Path, redact: Redaction) -> None:
        self.path, self.redact = path, redact
        self.full = False
        self.last: list[str] = []
        self.rest = b""
        self.shown = 0.0
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._put_aside()
        self.handle = path.open("ab", buffering=0)

    def _put_aside(self) -> None:
        self.path.replace(self.path.with_name(f"{self.path.name}.1"))

    def add(self, data: bytes, take: Callable[[str], None]) -> None:
        """Write what came and hand each whole line to ``take``."""
        data = self.rest + data
        ends = [found.end() for found in LINE_END.finditer(data)]
        lines = [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
        self.rest = data[ends[-1] :] if ends else data
        if len(self.rest) > LONGEST_LINE:
            lines, self.rest = [*lines, self.rest], b""
        kept = []
        for line in lines:
            text = self.redact(line.decode("utf-8", "replace").rstrip("\r\n"))
            if text.strip():
                kept += [text] if self._stays(line) else []
                take(text)
        if kept:
            self._write(kept)

    def _stays(self, line: bytes) -> bool:
        if not line.endswith(b"\r"):
            return True
        if time.monotonic() - self.shown < PROGRESS_EVERY_S:
            return False
        self.shown = time.monotonic()
        return True

    def _write(self, lines: list[str]) -> None:
        self.last = [*self.last, *lines][-20:]
        try:
            self.handle.write("".join(f"{line}\n" for line in lines).encode())
            if self.handle.tell() > LOG_BYTES:
                self.handle.close()
                self._put_aside()
                self.handle = self.path.open("ab", buffering=0)
        except OSError:
            self.full = True  # the step goes on; what it fails of is told by its end

    def close(self, take: Callable[[str], None]) -> None:
        """The last line needs no line end."""
        self.add(b"\n", take)
        self.handle.close()


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (128 + N for signal N), or why it had to end."""

    rc: int
    failure: Failure | None = None


Look = Callable[[float], Failure | None]


def execute(
    command: dag.Command,
    environment: Mapping[str, str],
    root: Path,
    log: Log,
    take: Callable[[str], None],
    look: Look,
    began: Callable[[int], None],
) -> Ended:
    """Run a command to its end, or to the failure that ``look`` finds.

    ``look`` is asked several times a second, ``take`` gets each line, ``began`` the process
    id. A command that cannot be started has exit code 127.
    """
    try:
        process = subprocess.Popen(
            dag.launch(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=root,
            env=dict(environment),
            start_new_session=True,
        )
    except OSError as error:
        log.add(f"cannot start: {error}\n".encode(), take)
        return Ended(127)
    assert process.stdout is not None
    try:
        began(process.pid)
        failure = _attend(process, log, take, look)
    finally:  # not waited for yet, so the number of its group is still its own
        dag_processes.signal_group(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    code = process.returncode
    return Ended(code if code >= 0 else 128 - code, failure)


def _attend(
    process: subprocess.Popen[bytes], log: Log, take: Callable[[str], None], look: Look
) -> Failure | None:
    """Read until the process ends; once it has to, TERM it, and kill it after a while."""
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    failure, term_at, asked = None, 0.0, False
    pause = 0.0005
    while not dag_processes.ended(process.pid):
        if not _read(pipe, TICK_S, log, take):
            time.sleep(pause)  # its output has ended: so will it, or it works on for long
            pause = min(2 * pause, TICK_S)
        now = time.monotonic()
        if failure is None and (failure := look(now)):
            term_at = now if failure.at_once else now + LAST_WORDS_S
        if failure and not asked and now >= term_at:
            asked = True
            dag_processes.signal_group(process.pid, signal.SIGTERM)
        if asked and now > term_at + dag_processes.GRACE_S:
            dag_processes.signal_group(process.pid, signal.SIGKILL)
    dag_processes.signal_group(process.pid, signal.SIGKILL)  # what it left behind
    for _ in range(PIPE_READS):
        if not _read(pipe, 0.0, log, take):
            break
    return failure or look(time.monotonic())


def _read(pipe: int, wait_s: float, log: Log, take: Callable[[str], None]) -> bool:
    """Take what is there, waiting for it at most so long; False at the end or when nothing came."""
    if not select.select([pipe], [], [], wait_s)[0]:
        return wait_s > 0
    data = os.read(pipe, 1 << 16)
    log.add(data, take)
    return bool(data)
