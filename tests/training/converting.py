"""``python -m tests.training.converting RUN``: the tiny training, but converting a checkpoint takes
longer than ranks otherwise wait for each other, as of a large network on a slow disk."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

from launcher.core.job import run_job
from rdt.training import checkpoint_universal, engine
from tests.training import tiny

CONVERT = checkpoint_universal._convert
LIMIT_S = 15


def convert(source: Path, target: Path) -> None:
    """Wait, then convert."""
    time.sleep(LIMIT_S + 5)
    CONVERT(source, target)


if __name__ == "__main__":
    engine.RENDEZVOUS_TIMEOUT = timedelta(seconds=LIMIT_S)
    checkpoint_universal._convert = convert
    run_job(tiny.body)
