"""Fine-tune with DeepSpeed; started once per rank by torch.distributed.run.

Re-running continues from the newest checkpoint and ends in the same weights, bit
for bit. The last thing published is ``policy/``; when it exists the job is done.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor

from jobs.fence import require_current
from launcher.core.job import Job, run_job
from rdt.data import statistics
from rdt.data.statistics import Statistics
from rdt.spec import recipe
from rdt.spec.card import statistics_digest
from rdt.spec.contract import Contract, require_same
from rdt.training import engine as distributed
from rdt.training import export, lost
from rdt.training.batches import Batches
from rdt.training.beginning import Beginning, begin
from rdt.training.checkpoint import Checkpoints
from rdt.training.checkpoint_writing import Fill
from rdt.training.data import Data
from rdt.training.ema import Ema
from rdt.training.engine import Engine
from rdt.training.gate import Gate
from rdt.training.loop import Loop
from rdt.training.validation import Validation


def body(job: Job) -> None:
    """Train to the end and publish ``policy/``."""
    with lost.named():
        _body(job)


def _body(job: Job) -> None:
    rank, ranks, device = distributed.start()
    if not distributed.agree(job.run.policy.is_dir()):
        train = job.config["train"]
        micro, accumulation = train["micro_batch"], train["accumulation"]
        recipe.sizes(micro, accumulation, train["effective_batch"], ranks)
        _train(job, rank, ranks, device)
    distributed.barrier()
    distributed.stop()


def _train(job: Job, rank: int, ranks: int, device: torch.device) -> None:
    config, train = job.config, job.config["train"]
    described = statistics.read(job.run.data / "statistics.json")
    contract = require_same(described.contract, "data/statistics.json")
    gate = Gate(job, device)
    gate.machines()
    begun = begin(config, described, contract, device)
    gate.rows += begun.rows
    engine = Engine(begun.module, train, device)
    ema = Ema(engine.owned(), train["ema_power"])
    with ExitStack() as opened:
        data = Data(job.run, config, described, rank, ranks, device, begun.shown)
        batches = opened.enter_context(data.training())
        fill = partial(export.fill, job, begun, described, batches.learned())
        shared = identity(config, described, begun, batches)
        checkpoints = Checkpoints(job, engine, ema, shared, fill)
        validation = _validation(data, engine, contract, train, opened)
        gate.rows += origins(described, contract, batches)
        loop = Loop(job, engine, batches, ema, checkpoints, validation, gate, first=rank == 0)
        steps = loop.run()
    publish = partial(_publish, job, fill, checkpoints.averaged(), steps)
    distributed.by_first(publish, distributed.second_group())  # gigabytes, maybe to a slow disk


def _publish(job: Job, fill: Fill, weights: dict[str, Tensor] | None, steps: int) -> None:
    assert weights is not None, "rank 0 has them"
    require_current(job)
    export.publish_policy(job, fill, weights, steps)


def _validation(
    data: Data, engine: Engine, contract: Contract, train: dict[str, Any], opened: ExitStack
) -> Validation | None:
    """Rounds of sampling, if the configuration asks for any or holds something out."""
    if not (train["validate_every"] or data.held_out):
        return None
    sources = {"train": data.training(plain=True)}
    if data.held_out:
        sources["validation"] = data.validation()
    sources = {name: opened.enter_context(batches) for name, batches in sources.items()}
    return Validation(engine, sources, contract, train["validation_batches"])


def origins(described: Statistics, contract: Contract, batches: Batches) -> list[tuple[str, str]]:
    """Rows of the gate: what the numbers mean and where they come from."""
    mean, std = tuple(described.state.mean), tuple(described.state.std)
    return [
        ("contract", f"{contract.name} {contract.digest()}"),
        ("statistics", statistics_digest(mean, std)),
        ("data", f"{described.dataset_digest}, {batches.epoch} samples in an epoch"),
    ]


def identity(
    config: dict[str, Any], described: Statistics, begun: Beginning, batches: Batches
) -> dict[str, str]:
    """What a checkpoint must share with this run to be continued.

    Encoders that are not trained are named by their numbers: a path may hold others by then.
    """
    shared = {"settings": settings_digest(config), "dataset": described.dataset_digest}
    if begun.frozen is not None:
        shared["vision"] = distributed.weights_digest(begun.frozen)
        shared["language"] = batches.words_digest()
    return shared


def settings_digest(config: dict[str, Any]) -> str:
    """Twelve hex digits over the seed and every training setting that changes a number."""
    train, dataset = recipe.deciding(config["train"]), config["dataset"]
    order = [dataset["order"], dataset["held_out"], [entry["weight"] for entry in dataset["sets"]]]
    text = json.dumps([config["seed"], train, order], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


if __name__ == "__main__":
    run_job(body)
