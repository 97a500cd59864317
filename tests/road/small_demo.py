"""The demo at its smallest: the same road, fewer of everything, on real LIBERO."""

from __future__ import annotations

import csv
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rdt.spec.record import Record, read_folder, read_lines

SETTINGS = [
    "collect.demos=2",
    "collect.render_every=8",
    "train.steps=16",
    "train.checkpoint_every=4",
    "train.warmup_steps=2",
    "train.log_every=1",
    "evaluate.init_states=[30, 32]",
    "task.max_steps=130",
    "evaluate.videos=0",  # a film costs as much as all episodes
]
VOLATILE = {"wall_s", "policy_s", "host", "shard", "attempt"}
"""Columns of episodes.csv that say how an episode was run, not what happened in it."""


def command(*arguments: str) -> list[str]:
    """``rdtl demo --quick`` with the small settings, in the image."""
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    if "--runtime" not in arguments:
        arguments = ("--runtime", "apptainer", *arguments)
    return [sys.executable, "-P", "-m", "launcher", "demo", "--quick", *settings, *arguments]


def run(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command(*arguments),
        cwd=cwd,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=900,
        check=False,
    )


def run_killed(cwd: Path, when: Callable[[], bool], timeout_s: float = 600) -> None:
    """Start it and SIGKILL the launcher as soon as ``when`` holds."""
    with subprocess.Popen(
        command(),
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    ) as launcher:
        deadline = time.monotonic() + timeout_s
        while not when():
            assert launcher.poll() is None, "the run ended before the moment to kill it came"
            assert time.monotonic() < deadline, "the moment to kill it never came"
            time.sleep(0.005)
        os.kill(launcher.pid, signal.SIGKILL)


def table(run_dir: Path) -> list[dict[str, str]]:
    """episodes.csv without what may differ between two runs of the same thing."""
    with (run_dir / "report" / "episodes.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert rows[0].keys() >= VOLATILE
    return [{k: v for k, v in row.items() if k not in VOLATILE} for row in rows]


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def all_lines(run_dir: Path) -> int:
    """Episodes ever recorded, duplicates included."""
    return len(read_lines(run_dir / "records"))


def records(run_dir: Path) -> list[Record]:
    """Records after de-duplication."""
    return read_folder(run_dir / "records")
