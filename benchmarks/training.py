"""CPU seconds per training step of our loop, against DeepSpeed with nothing around it.

One rank of a network as wide as the published 170M one, cut to two blocks so that a pair is
done in a minute; float32, four samples a step. Ours has everything on: gate, a line of the record
at every step, watchdog, EMA, a demonstration held out, data from files. The baseline has its
batches in memory. Losses must be equal bit for bit. The bar is 1/0.95. A checkpoint is written
behind the compared steps and counted by the share of it that a step has at the default
`train.checkpoint_every`; a round of validation is not among them.

Beside it: waiting for data, the time from the start of the process to the first step's end,
:mod:`benchmarks.training_network` and :mod:`benchmarks.training_lora`.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import harness, sampler_side, training_lora, training_network, training_runs
from benchmarks.training_runs import Mark
from launcher.core.job import Job
from launcher.schema_train import Train
from rdt.data import statistics as statistics_file
from rdt.model.policy_network import build, config_from_run
from rdt.model.presets import PRESETS
from rdt.model.rdt import Rdt
from rdt.model.trainable import Batch
from rdt.spec.contract import require_same
from rdt.training.data import Data
from tests.rdt import small_rdt

ROUNDS = 5
LIMIT, LIMIT_WAIT, LIMIT_START = 1 / 0.95, 0.02, 1.5
MODEL = {"hidden": 1024, "depth": 2, "heads": 32, "horizon": 64}
STEPS, FIRST, LAST = 6, 1, 4
"""Compared are steps FIRST to LAST - 1; after the next one the checkpoint is begun."""
TRAIN = {
    "steps": STEPS,
    "ranks_per_node": 1,
    "micro_batch": 4,
    "effective_batch": 4,
    "schedule": "constant",
    "warmup_steps": 0,
    "learning_rate": 1e-4,
    "log_every": 1,
    "checkpoint_every": LAST + 1,
    "validate_every": 500,
    "validation_batches": 1,
}
ANCHOR_S, ANCHOR_RATE = 1.26, 100e9
"""Forward and backward of :func:`anchor_flop`, and the rate of matrix products there."""


class Side:
    """One side in processes of its own; ``runs`` are what they have left."""

    def __init__(self, name: str, run: Path) -> None:
        self._name, self._run = name, run
        self.runs: list[dict[str, Any]] = []

    def measure(self) -> float:
        """CPU seconds per step of a fresh process on a fresh run."""
        for old in ("checkpoints", "policy", "events", "plots"):
            shutil.rmtree(self._run / old, ignore_errors=True)
        argv = training_runs.start(f"training_{self._name}", self._run)
        training_runs.finished([training_runs.popen(argv)])
        found = training_runs.found(self._run)
        if self._name == "ours":
            lines = training_runs.record(self._run)
            found["losses"] = [line["train/loss"] for line in lines]
            found["wait"] = statistics.median(line["train/data_wait"] for line in lines[FIRST:LAST])
        self.runs.append(found)
        return per_step(found["marks"], "cpu")

    def first_step(self, clock: str, number: int = 1) -> dict[str, Any]:
        """Seconds from the start of the process to the end of its first step; ``number`` 0: to
        the beginning of it."""
        began = [run["began"] if clock == "wall" else 0.0 for run in self.runs]
        marks = [getattr(run["marks"][number], clock) for run in self.runs]
        return harness.spread([m - b for m, b in zip(marks, began, strict=True)], f"{clock} s")


def per_step(marks: list[Mark], clock: str) -> float:
    """Seconds of ``clock`` per compared step."""
    return float(getattr(marks[LAST], clock) - getattr(marks[FIRST], clock)) / (LAST - FIRST)


def prepared(run: Path) -> int:
    """A run with its data; its batches in one file. Returns the FLOP of a step."""
    training_runs.prepare(run, MODEL, TRAIN, held_out=1)
    job = Job.from_environment(str(run))
    described = statistics_file.read(job.run.data / "statistics.json")
    with Data(job.run, job.config, described, 0, 1).training() as batches:
        kept = [Batch(*(t.clone() for t in batches.micro(step, 0))) for step in range(STEPS)]
    named = [(f"{s}.{name}", t) for s, b in enumerate(kept) for name, t in b._asdict().items()]
    save_file(dict(named), run / training_runs.BATCHES)
    contract = require_same(described.contract, "data/statistics.json")
    network = config_from_run(job.config["train"]["model"], described.camera_size, contract)
    with torch.device("meta"):
        module = build(network, contract, "train.model")
    with FlopCounterMode(display=False) as counter:
        module(kept[0].to(torch.device("meta"))).backward()
    return int(counter.get_total_flops())


def anchor_flop() -> int:
    """FLOP of a forward and backward pass of 512 features, 4 blocks and 8 heads on 2 samples."""
    sizes = {**PRESETS["170m"].rdt, "hidden_size": 512, "depth": 4, "num_heads": 8}
    config = small_rdt.changed(**(PRESETS["170m"].to_dict() | {"rdt": sizes}))
    given = small_rdt.inputs(config, rows=2, language=32)
    with torch.device("meta"):
        network = Rdt(config)
    meta = {name: tensor.to("meta") for name, tensor in vars(given).items()}
    with FlopCounterMode(display=False) as counter:
        keys = network.keys(meta["lang"], meta["lang_valid"], meta["img"])
        told = (meta["state"], meta["noise"], meta["mask"], meta["freq"], meta["t"])
        network.denoise(*told, keys).sum().backward()
    return int(counter.get_total_flops())


def checkpoint(ours: Side) -> dict[str, Any]:
    """CPU seconds of a checkpoint: of the loop until it goes on, and of the writing thread."""
    writing = [run["writing"] for run in ours.runs]
    loop = []
    for run in ours.runs:
        before, after = run["marks"][LAST], run["marks"][LAST + 1]
        loop.append(after.thread - before.thread - per_step(run["marks"], "thread"))
    every = Train().checkpoint_every
    both = statistics.median(writing) + statistics.median(loop)
    return {
        "loop": harness.spread(loop, "CPU s"),
        "writing": harness.spread(writing, "CPU s"),
        "every": every,
        "per_step_s": round(both / every, 5),
    }


def started(ours: Side, bare: Side) -> dict[str, Any]:
    """From the start of the processes to the first step, its end and its beginning."""
    found: dict[str, Any] = {"limit": LIMIT_START}
    for clock in ("wall", "cpu"):
        for name, number in (("first_step", 1), ("before_it", 0)):
            mine, theirs = (side.first_step(clock, number) for side in (ours, bare))
            ratio = round(mine["median"] / theirs["median"], 3)
            found[f"{name}_{clock}"] = {"ours": mine, "baseline": theirs, "ratio": ratio}
    most = max(found[f"first_step_{clock}"]["ratio"] for clock in ("wall", "cpu"))
    return {**found, "of_limit": round(most / LIMIT_START, 3)}


def compare(folder: Path) -> dict[str, Any]:
    """Our loop and the bare one, in turns."""
    flop = prepared(folder)
    ours, bare = Side("ours", folder), Side("bare", folder)
    harness.alternate(ours.measure, bare.measure, ROUNDS)
    return figures(ours, bare, flop, sampler_side.gemm_rate(torch.float32))


def figures(ours: Side, bare: Side, flop: int, rate: float) -> dict[str, Any]:
    """What the runs of both sides say; ``rate``: FLOP a second of this machine's core."""
    a, b = ([per_step(run["marks"], "cpu") for run in side.runs] for side in (ours, bare))
    saved = checkpoint(ours)
    mine = harness.spread([one + saved["per_step_s"] for one in a], "CPU s")
    theirs = harness.spread(b, "CPU s")
    ratio = mine["median"] / theirs["median"]
    waits = [run["wait"] for run in ours.runs]
    # The anchor has no optimizer, whose step is bound by memory: what it takes here is added.
    optimizer = statistics.median(one for run in bare.runs for one in run["optimizer"][FIRST:LAST])
    anchor = ANCHOR_S * flop / anchor_flop() * ANCHOR_RATE / rate + optimizer
    return {
        "ours": mine,
        "baseline": {**theirs, "what": "DeepSpeed alone, batches in memory"},
        "ratio": round(ratio, 4),
        "limit": round(LIMIT, 4),
        "of_limit": round(ratio / LIMIT, 3),
        "pairs": [round(one / other, 4) for one, other in zip(a, b, strict=True)],
        "checkpoint": saved,
        "data_wait": {
            **harness.spread(waits, "of the time"),
            "limit": LIMIT_WAIT,
            "of_limit": round(statistics.median(waits) / LIMIT_WAIT, 3),
        },
        "start": started(ours, bare),
        "gflop": round(flop / 1e9, 1),
        "calibration": {"gemm_gflop_s": round(rate / 1e9, 1), "optimizer_s": round(optimizer, 3)},
        "baseline_of_anchor": round(theirs["median"] / anchor, 2),
        "equal": all(run["losses"] == bare.runs[0]["losses"] for run in ours.runs + bare.runs),
        "losses": bare.runs[0]["losses"],
    }


def main() -> None:
    """The loop, then LoRA, then the network."""
    began = time.monotonic()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / part for part in ("loop", "lora", "network")]
        for folder in folders:
            folder.mkdir()
        result = {"benchmark": "training", **compare(folders[0])}
        result["lora"] = training_lora.compare(folders[1])
        result["network"] = training_network.compare(folders[2])
    harness.finish(result, ["torch", "deepspeed", "peft"], began)


if __name__ == "__main__":
    main()
