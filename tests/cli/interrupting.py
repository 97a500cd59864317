"""Ctrl-C as a terminal sends it: to everything that a command has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

MARK = "RDTL_TEST_COMMAND"
"""A variable that all that a command starts inherits, also in sessions of its own."""


def interrupt(
    *arguments: str,
    when: Callable[[], bool],
    cwd: Path,
    env: dict[str, str] | None = None,
    timeout_s: float = 60,
    mark: str | None = None,
    everybody: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Start ``rdtl ARGUMENTS``, press Ctrl-C ``when`` something holds, and wait for the end.

    As a terminal sends it, to ``everybody``, or as `kill -INT` to the command alone.
    Fails when anything that the command started, which has inherited ``mark``, is alive
    afterwards.
    """
    mark = mark or uuid.uuid4().hex
    out, err = cwd / f"{mark}.out", cwd / f"{mark}.err"
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "launcher", *arguments],
            cwd=cwd,
            env={**os.environ, **(env or {}), MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        _wait(lambda: when() or process.poll() is not None, timeout_s)
        assert process.poll() is None, f"it ended first: {err.read_text()}"
        (os.killpg if everybody else os.kill)(process.pid, signal.SIGINT)
        process.wait(timeout=timeout_s)
        left = descendants(mark)
        for _ in range(100):  # what was told to end may take a moment to be gone
            if not left:
                break
            time.sleep(0.1)
            left = descendants(mark)
        assert not left, f"left behind: {left}"
    finally:
        for pid in descendants(mark):
            os.kill(pid, signal.SIGKILL)
    return subprocess.CompletedProcess(
        arguments, process.returncode, out.read_text(), err.read_text()
    )


def descendants(mark: str) -> dict[int, str]:
    """Processes that have inherited ``mark``, with their command lines."""
    found = {}
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                if words:  # nothing: it has ended, and nobody has asked for its status
                    found[int(folder.name)] = words.decode(errors="replace").strip()
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return found


def _wait(holds: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "what was waited for never came"
        time.sleep(0.05)
