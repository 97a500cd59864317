"""``python -m tests.training.parting RUN``: the training job, but from the fourth step on the ranks
hold different weights, as where gradients are no longer exchanged."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from jobs import train
from launcher.core.job import run_job
from rdt.training.engine import Engine

STEP = Engine.step
taken = 0


def part(engine: Engine, *arguments: Any) -> float:
    """Every step as it is; with the fourth each rank moves one parameter its own way."""
    global taken
    taken += 1
    share = STEP(engine, *arguments)
    if taken == 4:
        with torch.no_grad():
            next(engine.module.parameters()).add_(1e-3 * dist.get_rank())
    return share


if __name__ == "__main__":
    Engine.step = part  # type: ignore[method-assign]
    run_job(train.body)
