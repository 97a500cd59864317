"""Ranks on this machine as jobs.ranks starts them, outside of any image."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(count: int, module: str, run: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """``python -m jobs.ranks COUNT MODULE RUN ARGUMENTS``; its log is RUN/log."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RDTL_STAGE": "train",
        "RDTL_ERROR_FILE": str(run / "error.json"),
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "jobs.ranks", str(count), module, str(run), *arguments],
        env=environment,
        stdout=(run / "log").open("ab"),
        stderr=subprocess.STDOUT,
    )


def run(count: int, module: str, run: Path, *arguments: str) -> None:
    """The same to its end, which must be a good one."""
    status = start(count, module, run, *arguments).wait(timeout=600)
    assert status == 0, (run / "log").read_text()[-4000:]
