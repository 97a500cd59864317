"""Runs whose stages are shell scripts: an array and a report that waits for its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.create import create


def make(root: Path, site: str, script: str, tasks: int = 4) -> RunDir:
    """A run directory of which nothing was submitted yet; ``script`` sees $RDTL_INDEX."""
    array = Stage(
        "work", ("sh", "-c", script), array=tasks, own_code=False, memory_mb=50, minutes=30
    )
    report = Stage(
        "report",
        ("sh", "-c", "echo reported"),
        needs=("work",),
        needs_ended=True,
        own_code=False,
        memory_mb=50,
        minutes=30,
    )
    run = RunDir(root.resolve())
    create(run, Plan("small", site, (array, report), {"command": script}), "command: small\n")
    return run


def wait_until(holds: Callable[[], bool], timeout_s: float = 120) -> None:
    """Return as soon as ``holds``; AssertionError when it never does."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "what was waited for never came"
        time.sleep(0.05)
