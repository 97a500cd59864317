"""The record of a training: one line of JSON per look, each step's once.

Rank 0 alone writes it. After a resume the lines of steps that will be done again
are dropped by replacing the file as a whole; an older attempt that still lives
then writes into a file without a name and harms nobody.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.job import Job
from rdt.training.tracking import Tracker

FILE = "metrics.jsonl"


class Record:
    """``checkpoints/metrics.jsonl`` and, if asked for, Weights & Biases.

    ``seconds_before``: of training before this start; ``before``: the lines of then.
    """

    def __init__(self, job: Job, resumed_step: int) -> None:
        path = job.run.checkpoints / FILE
        kept = kept_lines(path, resumed_step)
        files.write_text(path, "".join(line + "\n" for line in kept))
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        self.before: list[dict[str, Any]] = [json.loads(line) for line in kept]
        self.seconds_before = self.before[-1]["seconds"] if kept else 0.0
        self._tracker = None if job.config["train"]["wandb"] == "off" else Tracker(job)

    def write(self, step: int, seconds: float, numbers: dict[str, float]) -> None:
        """``step`` counts finished optimizer steps, ``seconds`` those of this start."""
        line = {"step": step, "seconds": round(self.seconds_before + seconds, 3), **numbers}
        files.append_line(self._descriptor, json.dumps(line))
        if self._tracker is not None:
            self._tracker.log(line)

    def close(self) -> None:
        """Finish the record."""
        os.close(self._descriptor)
        if self._tracker is not None:
            self._tracker.close()


def kept_lines(path: Path, resumed_step: int) -> list[str]:
    """Whole lines of steps up to ``resumed_step``; none when there is no file."""
    if not path.exists():
        return []
    lines, _ = files.read_whole_lines(path)
    return [line for line in lines if json.loads(line)["step"] <= resumed_step]
