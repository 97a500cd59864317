"""The loss record: one line of JSON per logged step, each step once.

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

FILE = "loss.jsonl"


class LossRecord:
    """``checkpoints/loss.jsonl`` and, if asked for, Weights & Biases."""

    def __init__(self, job: Job, resumed_step: int) -> None:
        path = job.run.checkpoints / FILE
        kept = kept_lines(path, resumed_step)
        files.write_text(path, "".join(line + "\n" for line in kept))
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        self.seconds_before = json.loads(kept[-1])["seconds"] if kept else 0.0
        self._wandb = _wandb(job)

    def write(self, step: int, loss: float, lr: float, grad_norm: float, seconds: float) -> None:
        """``step`` counts finished optimizer steps, ``seconds`` those of training so far."""
        line = {
            "step": step,
            "loss": loss,
            "lr": lr,
            "grad_norm": grad_norm,
            "seconds": round(seconds, 3),
        }
        files.append_line(self._descriptor, json.dumps(line))
        if self._wandb is not None:
            self._wandb.log(line, step=step)

    def close(self) -> None:
        """Finish the record."""
        os.close(self._descriptor)
        if self._wandb is not None:
            self._wandb.finish()


def kept_lines(path: Path, resumed_step: int) -> list[str]:
    """Whole lines of steps up to ``resumed_step``; none when there is no file."""
    if not path.exists():
        return []
    lines, _ = files.read_whole_lines(path)
    return [line for line in lines if json.loads(line)["step"] <= resumed_step]


def _wandb(job: Job) -> Any:
    mode = job.config["train"]["wandb"]
    if mode == "off":
        return None
    import wandb  # half a second, and only some runs want it

    # The key comes from the environment (WANDB_API_KEY) and is never read here.
    return wandb.init(
        project="rdt-launcher",
        name=job.config["name"],
        id=job.run.root.name,
        resume="allow",
        mode=mode,
        dir=job.run.checkpoints,
        config=job.config,
    )
