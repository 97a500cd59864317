"""CPU seconds per training step of our loop, against DeepSpeed with nothing around it.

One rank of a network as wide as the published 170M one, cut to four blocks so that a pair fits
into memory; float32, eight samples a step. Ours has everything on: gate, record of every step,
watchdog, EMA, demonstrations held out, data from files; the baseline has its batches in memory.
Losses must be equal bit for bit. The bar is 1/0.95. One checkpoint is written beside the steps;
its CPU seconds are counted by the share that one in `train.checkpoint_every` steps has.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks import harness, training_lora, training_network, training_runs
from benchmarks.training_runs import Mark
from launcher.core import files
from launcher.core.job import Job
from launcher.schema_train import Train

ROUNDS = 5
LIMIT, LIMIT_WAIT, LIMIT_START = 1 / 0.95, 0.02, 1.5
MODEL = {"hidden": 1024, "depth": 4, "heads": 32, "horizon": 64}
STEPS, FIRST, LAST = 12, 1, 7
"""Compared are steps FIRST to LAST - 1; after step LAST + 1 the checkpoint is begun."""
TRAIN = {
    "steps": STEPS,
    "ranks_per_node": 1,
    "micro_batch": 8,
    "schedule": "constant",
    "warmup_steps": 0,
    "learning_rate": 1e-4,
    "log_every": 1,
    "checkpoint_every": LAST + 1,
    "validate_every": 500,
    "validation_batches": 1,
}
# Forward and backward of a network of 512 features and 4 blocks on 2 samples, and its rate.
ANCHOR_S, ANCHOR_RATE = 1.26, 100e9


class Side:
    """One side in processes of its own; ``runs`` are what they have left."""

    def __init__(self, name: str, run: Path) -> None:
        self._name, self.run = name, run
        self.runs: list[dict[str, Any]] = []

    def measure(self) -> float:
        """CPU seconds per step of a fresh process."""
        for old in ("checkpoints", "policy", "events", "plots"):
            files.remove(self.run / old)
        argv = training_runs.start(f"training_{self._name}", self.run)
        training_runs.finished([training_runs.popen(argv)])
        self.runs.append(training_runs.found(self.run))
        return per_step(self.runs[-1]["marks"], "cpu")

    def values(self, figure: Any) -> list[float]:
        """A function of the marks for all processes."""
        return [figure(run["marks"]) for run in self.runs]


def per_step(marks: list[Mark], clock: str) -> float:
    """Seconds of ``clock`` per compared step."""
    return float(getattr(marks[LAST], clock) - getattr(marks[FIRST], clock)) / (LAST - FIRST)
