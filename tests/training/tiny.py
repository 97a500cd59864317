"""A tiny network on any number of ranks, with everything that training keeps between steps.

``python -m tests.training.tiny RUN UNTIL`` trains the run to step UNTIL on the ranks that
jobs.ranks starts. Samples and their order depend on the step alone, so the same effective
batch is computed whatever the number of ranks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from launcher.core import files
from launcher.core.job import Job, run_job
from launcher.core.runs import RunDir
from rdt.training import engine as distributed
from rdt.training.checkpoint import Checkpoints
from rdt.training.checkpoint_writing import Fill
from rdt.training.ema import Ema
from rdt.training.engine import Engine

EFFECTIVE = 8
SETTINGS: dict[str, Any] = {
    "effective_batch": EFFECTIVE,
    "gradient_clipping": 0.05,
    "learning_rate": 1e-2,
    "weight_decay": 0.01,
    "zero_stage": 1,
    "dtype": "fp32",
    "offload": False,
    "deepspeed": None,
    "ema_power": 0.75,
    "checkpoint_every": 4,
    "keep_checkpoints": 2,
    "keep_every": None,
    "keep_best": None,
    "lora": None,
}


class Net(nn.Module):
    """Two layers, a table used beside them, a constant and a frozen number."""

    constant: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(7, width), nn.Linear(width, 5)
        self.table = nn.Parameter(torch.zeros(width))
        self.frozen = nn.Parameter(torch.tensor([1.23456789]), requires_grad=False)
        self.register_buffer("constant", torch.tensor([0.12345678]), persistent=False)

    def forward(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Sum of the squared errors of (n, 7) samples against (n, 5), over the effective batch."""
        given, wanted = batch
        hidden = torch.tanh(self.first(given) + self.table)
        error = self.last(hidden) * self.frozen - wanted + self.constant
        return error.square().sum() / (EFFECTIVE * 5)


def network(width: int = 33) -> Net:
    """The same weights at every call."""
    torch.manual_seed(0)
    return Net(width)


def samples(step: int) -> tuple[Tensor, Tensor]:
    """The effective batch of a step: (8, 7) and (8, 5)."""
    random = torch.Generator().manual_seed(step)
    return torch.randn(EFFECTIVE, 7, generator=random), torch.randn(EFFECTIVE, 5, generator=random)


def micro_batches(step: int, micro: int, accumulation: int) -> list[tuple[Tensor, Tensor]]:
    """This rank's part of :func:`samples`."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    given, wanted = samples(step)
    rows = [slice((k * ranks + rank) * micro, None) for k in range(accumulation)]
    return [(given[row][:micro], wanted[row][:micro]) for row in rows]


def fill(folder: Path, weights: Mapping[str, Tensor], steps: int) -> None:
    """The averaged weights, as the real export names their file."""
    from rdt.checkpoint.saving import write_tensors

    write_tensors(folder / "model.safetensors", weights)


class Training:
    """What the real loop has, without its data and records."""

    def __init__(
        self, root: Path, width: int = 33, round_: int = 0, fill: Fill = fill, **train: Any
    ) -> None:
        ranks = dist.get_world_size()
        micro = train.pop("micro_batch", 1)
        accumulation = EFFECTIVE // micro // ranks
        self.train = {**SETTINGS, "micro_batch": micro, "accumulation": accumulation, **train}
        root.mkdir(parents=True, exist_ok=True)
        job = Job(RunDir(root), {"train": self.train}, "train", 0, 1, round_, 0)
        self.engine = Engine(network(width), self.train, torch.device("cpu"))
        self.ema = Ema(self.engine.owned(), self.train["ema_power"])
        self.checkpoints = Checkpoints(job, self.engine, self.ema, {"settings": "tiny"}, fill)
        self.step = 0
        self.losses: list[float] = []

    def to(self, step: int) -> Training:
        """Train until ``step`` steps are done; a checkpoint after every fourth."""
        while self.step < step:
            parts = micro_batches(self.step, self.train["micro_batch"], self.train["accumulation"])
            self.losses.append(distributed.total(self.engine.step(parts, 1e-2)))
            self.ema.update()
            self.step += 1
            if self.step % self.train["checkpoint_every"] == 0:
                self.checkpoints.save(self.step)
        self.checkpoints.wait()
        return self

    def resumed(self) -> Training:
        """From the newest checkpoint."""
        self.step = self.checkpoints.resume()
        return self


def body(job: Job) -> None:
    """Train to the step of the command line; append (step, loss) of each to losses.jsonl."""
    distributed.start()
    training = Training(job.run.root, **job.config["train"]).resumed()
    first = training.step
    training.to(int(sys.argv[2]))
    training.engine.require_equal_weights(training.step)
    if dist.get_rank() == 0:
        with (job.run.root / "losses.jsonl").open("a") as log:
            for step, loss in enumerate(training.losses, first):
                log.write(json.dumps([step, loss]) + "\n")
    distributed.barrier()


def plan(root: Path, **train: Any) -> Path:
    """A run that :func:`body` trains with these settings."""
    root.mkdir(parents=True, exist_ok=True)
    files.write_json(root / "plan.json", {"config": {"train": train}})
    return root


if __name__ == "__main__":
    run_job(body)
