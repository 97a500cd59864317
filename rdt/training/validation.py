"""What the network makes of samples between two steps: loss, sampled chunks, a picture.

Every round looks at the same samples with the same noise, so its numbers can be compared.
It measures the weights that are being trained, not their average: whole averages are
there at checkpoints only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from launcher.core import files
from rdt.model.trainable import Batch
from rdt.spec.contract import Contract
from rdt.training import engine as distributed
from rdt.training.batches import Batches
from rdt.training.chunk_plot import chunk_plot
from rdt.training.engine import Engine

LOSS = "validation/loss"


class Measured(NamedTuple):
    """Numbers of one round, and one chunk: true and sampled, (H, 128) float32."""

    numbers: dict[str, float]
    true: NDArray[np.float32]
    sampled: NDArray[np.float32]


class Validation:
    """Rounds over fixed samples. ``sources`` by name: "train", and "validation" when
    demonstrations are held out; of each, ``count`` effective batches are looked at, if
    there are as many."""

    def __init__(
        self, engine: Engine, sources: Mapping[str, Batches], contract: Contract, count: int
    ) -> None:
        self._engine, self._sources = engine, sources
        self._contract, self._count = contract, count

    def round(self, folder: Path, step: int) -> dict[str, float]:
        """Measure, on all ranks together; rank 0 writes ``step_NNNNNN.svg`` into ``folder``."""
        found: dict[str, float] = {}
        shown = None
        for name, batches in self._sources.items():
            shown = self._measure(name, batches)
            found |= shown.numbers
        if shown is not None and torch.distributed.get_rank() == 0:
            folder.mkdir(exist_ok=True)
            title = f"Step {step}: {name} sample"
            plot = chunk_plot(title, self._contract, shown.true, shown.sampled)
            files.write_text(folder / f"step_{step:06d}.svg", plot)
        return found

    def _measure(self, name: str, batches: Batches) -> Measured:
        count = min(self._count, batches.whole_batches)
        share, sums = 0.0, np.zeros((len(self._contract.action), 2))
        with self._engine.evaluating():
            for number in range(count):
                for place, batch in enumerate(batches.step(number)):
                    share += float(self._engine.deepspeed(batch))
                    if place == 0:
                        sampled = self._engine.deepspeed(batch, sampled=True).float()
                        sums += squared_errors(self._contract, batch, sampled)
                        true = batch.actions[0].float().cpu().numpy()
        sums = np.sum(distributed.gather(sums), axis=0)
        numbers = {f"{name}/loss": distributed.total(share) / count} if name != "train" else {}
        numbers |= errors(name, self._contract, sums)
        return Measured(numbers, true, sampled[0].cpu().numpy())


def squared_errors(contract: Contract, batch: Batch, sampled: torch.Tensor) -> NDArray[np.float64]:
    """Sum and count (groups, 2) of squared errors of real action steps, in units of the slots."""
    difference = (sampled - batch.actions)[batch.weight > 0].double()
    rows = [difference[:, list(part.slots)] for part in contract.action]
    return np.array([[float(row.square().sum()), row.numel()] for row in rows])


def errors(name: str, contract: Contract, sums: NDArray[np.float64]) -> dict[str, float]:
    """`NAME/sample_mse` over the action slots, and `NAME/error/GROUP (UNIT)`, the root mean
    squared error of each group in physical units."""
    found = {f"{name}/sample_mse": float(sums[:, 0].sum() / sums[:, 1].sum())}
    for part, (squared, count) in zip(contract.action, sums.tolist(), strict=True):
        factor, unit = part.physical
        error = factor * math.sqrt(squared / count)
        found[f"{name}/error/{part.name} ({unit})"] = error
    return found


class EarlyStopping:
    """Ends the training after ``patience`` rounds whose validation loss was not the lowest.

    ``losses``: those of rounds before a resume, in their order.
    """

    def __init__(self, patience: int | None, losses: list[float]) -> None:
        self._patience = patience
        self._best, self._since = math.inf, 0
        for loss in losses:
            self.after(loss)

    def after(self, loss: float) -> bool:
        """Note a round's loss; True when it is time to stop."""
        self._since = 0 if loss < self._best else self._since + 1
        self._best = min(self._best, loss)
        return self._patience is not None and self._since >= self._patience
