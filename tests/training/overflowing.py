"""``python -m tests.training.overflowing RUN``: the training job, but from the fourth step on a
gradient is infinite while the loss is a number, as where a half-precision sum overflows."""

from __future__ import annotations

from typing import Any

from jobs import train
from launcher.core.job import run_job
from rdt.training.engine import Engine

STEP = Engine.step
taken = 0


def overflow(engine: Engine, *arguments: Any) -> float:
    """Three steps as they are, then infinite gradients of one parameter."""
    global taken
    taken += 1
    if taken == 4:
        next(p for p in engine.module.parameters() if p.requires_grad).register_hook(
            lambda gradient: gradient * float("inf")
        )
    return STEP(engine, *arguments)


if __name__ == "__main__":
    Engine.step = overflow  # type: ignore[method-assign]
    run_job(train.body)
