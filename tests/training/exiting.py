"""``python -m tests.training.exiting RUN``: the training job, but where the file ``exits`` lies
in the run the last rank removes it and ends with 1 in the middle of its third step."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from jobs import train
from launcher.core.job import run_job
from rdt.training.engine import Engine

STEP = Engine.step
taken = 0


def leave(engine: Engine, *arguments: Any) -> float:
    """Two steps as they are, then half of one."""
    global taken
    taken += 1
    last = os.environ["RANK"] == str(int(os.environ["WORLD_SIZE"]) - 1)
    if taken == 3 and last and (order := Path(sys.argv[1]) / "exits").exists():
        order.unlink()
        os._exit(1)
    return STEP(engine, *arguments)


if __name__ == "__main__":
    Engine.step = leave  # type: ignore[method-assign]
    run_job(train.body)
