"""The baseline of :mod:`benchmarks.training`: DeepSpeed, a model, a list of batches, nothing else.

``python -m jobs.ranks 1 benchmarks.training_bare RUN``. The batches lie in memory before the
first step, so it neither reads nor transforms data.
"""

from __future__ import annotations

import time
from typing import Any

import deepspeed
import torch
from safetensors.torch import load_file

from benchmarks.training_runs import BATCHES, leave, mark
from launcher.core.job import Job, run_job
from rdt.data import statistics
from rdt.model.policy_network import build, config_from_run
from rdt.model.trainable import Batch
from rdt.spec.contract import require_same

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # or it compiles for minutes


def settings(train: dict[str, Any]) -> dict[str, Any]:
    """DeepSpeed's JSON of the same training."""
    return {
        "train_batch_size": train["effective_batch"],
        "train_micro_batch_size_per_gpu": train["micro_batch"],
        "gradient_clipping": train["gradient_clipping"],
        "zero_optimization": {"stage": train["zero_stage"]},
        "zero_force_ds_cpu_optimizer": False,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": train["learning_rate"],
                "weight_decay": train["weight_decay"],
                "torch_adam": True,
            },
        },
    }


def batches(job: Job) -> list[Batch]:
    """All batches of the run."""
    tensors = load_file(job.run.root / BATCHES)
    count = len(tensors) // len(Batch._fields)
    return [Batch(*(tensors[f"{step}.{name}"] for name in Batch._fields)) for step in range(count)]


def body(job: Job) -> None:
    """Train on every batch once; leave clocks and losses."""
    train = job.config["train"]
    torch.set_num_threads(1)
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False, verbose=False)
    deepspeed.logger.setLevel("WARNING")
    described = statistics.read(job.run.data / "statistics.json")
    contract = require_same(described.contract, "data/statistics.json")
    network = config_from_run(train["model"], described.camera_size, contract)
    torch.manual_seed(job.config["seed"])
    module = build(network, contract, "train.model")
    engine, *_ = deepspeed.initialize(
        model=module, model_parameters=module.parameters(), config=settings(train)
    )
    marks, losses, optimizer = [], [], []
    for batch in batches(job):
        marks.append(mark())
        loss = engine(batch)
        engine.backward(loss)
        began = time.process_time()
        engine.step()
        optimizer.append(time.process_time() - began)
        losses.append(float(loss.detach()))
    leave(job.run.root, marks, losses=losses, optimizer=optimizer)


if __name__ == "__main__":
    run_job(body)
