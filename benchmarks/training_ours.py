"""Our side of :mod:`benchmarks.training`: the real job, with clocks read before every step.

``python -m jobs.ranks 1 benchmarks.training_ours RUN``
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.training_runs import Mark, leave, mark
from jobs import train
from launcher.core.job import Job, run_job
from rdt.training.loop import Loop

MARKS: list[Mark] = []
SEEN: dict[str, Any] = {}


class Timed(Loop):
    """The loop as it is; a mark before each step, and what the writing thread has used."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.checkpoints.after_publish.append(published)
        trained = (p for p in self.engine.module.parameters() if p.requires_grad)
        SEEN["parameters"] = sum(p.numel() for p in trained)

    def _one_step(self, step: int) -> None:
        MARKS.append(mark())
        super()._one_step(step)


def published(path: Path) -> None:
    """Called in the thread that has written a checkpoint: its CPU seconds."""
    SEEN["writing"] = time.thread_time()


def body(job: Job) -> None:
    """Train to the end and leave the marks."""
    train.Loop = Timed  # type: ignore[attr-defined]
    train.body(job)
    leave(job.run.root, MARKS, **SEEN)


if __name__ == "__main__":
    run_job(body)
