"""Fine-tune with DeepSpeed; started once per rank by torch.distributed.run.

Re-running continues from the newest checkpoint and ends in the same weights, bit
for bit. The last thing published is ``policy/``; when it exists the job is done.
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch

from launcher.core.job import Job, run_job
from launcher.core.runs import RunDir
from rdt.data import statistics
from rdt.data.buffered import BufferedSource
from rdt.data.order import Order
from rdt.data.sample_source import ANY, SampleSource
from rdt.data.statistics import Statistics
from rdt.model.policy_network import PICTURE_HISTORY, build, config_from_run
from rdt.spec import recipe
from rdt.spec.contract import CONTRACTS, require_same
from rdt.training import engine as distributed
from rdt.training import export
from rdt.training.batches import CPU, Batches
from rdt.training.checkpoint import Checkpoints
from rdt.training.ema import Ema
from rdt.training.engine import Engine
from rdt.training.loop import Loop

# Settings that change neither weights nor loss but by rounding: what is kept and said, and on how
# many ranks the same effective batch is computed. All others must stay when a run is resumed.
BOOKKEEPING = (
    *("log_every", "keep_checkpoints", "keep_every", "keep_best", "checkpoint_every", "wandb"),
    *("nodes", "ranks_per_node", "micro_batch", "accumulation"),
    *("zero_stage", "offload", "deepspeed"),
)


def body(job: Job) -> None:
    """Train to the end and publish ``policy/``."""
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
    network = config_from_run(train["model"], described.camera_size, contract)
    torch.manual_seed(config["seed"])  # fresh weights; nothing else draws from this generator
    module = build(network, contract, "train.model").to(device)
    engine = Engine(module, train, device)
    ema = Ema(engine.owned(), train["ema_power"])
    fill = partial(export.fill, job, network, described)
    identity = {"settings": settings_digest(config), "dataset": described.dataset_digest}
    checkpoints = Checkpoints(job, engine, ema, identity, fill)
    with open_batches(job.run, config, described, rank, ranks, device) as batches:
        steps = Loop(job, engine, batches, ema, checkpoints, first=rank == 0).run()
    weights = checkpoints.averaged()
    if weights is not None:
        export.publish_policy(job, fill, weights, steps)


def open_batches(
    run: RunDir,
    config: dict[str, Any],
    described: Statistics,
    rank: int,
    ranks: int,
    device: torch.device = CPU,
) -> Batches:
    """The batches of one rank on ``device``, of the data sets as the dataset stage found them.

    Raises RdtlError RDTL-D028 when a file was changed since, D044 when the configuration
    names a buffer of something else.
    """
    contract, train = CONTRACTS[described.contract["name"]], config["train"]
    sets = described.sources(run.root)
    stores = [entry.kept(run.data / "index") for entry in sets]
    folder = config["dataset"]["buffer"]
    buffered = BufferedSource(Path(folder), contract, rank, ranks) if folder else None
    lengths = buffered.lengths if buffered else ANY
    horizon = train["model"]["horizon"]
    source = SampleSource(stores, contract, PICTURE_HISTORY, horizon, lengths)
    weights = tuple(entry.weight for entry in sets)
    order = Order(source.index.sizes, config["seed"], weights, config["dataset"]["order"])
    if buffered:
        buffered.require_stands_for(source, order)
    return Batches(source, order, described, train, rank, ranks, buffered, device)


def settings_digest(config: dict[str, Any]) -> str:
    """Twelve hex digits over the seed and every training setting that changes a number."""
    train = {key: value for key, value in config["train"].items() if key not in BOOKKEEPING}
    order = [config["dataset"]["order"], [entry["weight"] for entry in config["dataset"]["sets"]]]
    text = json.dumps([config["seed"], train, order], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


if __name__ == "__main__":
    run_job(body)
