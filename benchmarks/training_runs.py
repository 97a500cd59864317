"""Run directories and starts that :mod:`benchmarks.training` and its sides share."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from launcher.core import files

DEVICE = "eth0"
"""Interface of the hosts that :mod:`benchmarks.training_network` makes."""
MARKS, BATCHES, BEGAN = "marks", "batches.safetensors", "BENCH_BEGAN"
SEED = 7


class Mark(NamedTuple):
    """Clocks before a step: seconds of wall, process and main thread, bytes sent so far."""

    wall: float
    cpu: float
    thread: float
    sent: int


def mark() -> Mark:
    """The clocks now."""
    return Mark(time.monotonic(), time.process_time(), time.thread_time(), sent())


def sent() -> int:
    """Bytes that this network namespace has sent by :data:`DEVICE`, 0 without it."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == DEVICE:
            return int(counts.split()[8])
    return 0


def leave(run: Path, marks: Sequence[Mark], **more: Any) -> None:
    """Write what a rank has measured for :func:`found`."""
    rank = int(os.environ["RANK"])
    began = float(os.environ[BEGAN])
    data = {"began": began, "marks": [one._asdict() for one in marks], **more}
    files.write_json(run / f"{MARKS}.{rank}.json", data)


def found(run: Path, rank: int = 0) -> dict[str, Any]:
    """What a rank has left, with ``marks`` as :class:`Mark`."""
    data = dict(files.read_json(run / f"{MARKS}.{rank}.json"))
    return data | {"marks": [Mark(**one) for one in data["marks"]]}


def record(run: Path) -> list[dict[str, float]]:
    """What our loop has written of each step."""
    lines = map(json.loads, (run / "checkpoints/metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "train/loss" in line]


def prepare(run: Path, model: dict[str, int], train: dict[str, Any], held_out: float = 0.0) -> None:
    """A run directory with its plan and small demonstrations, as the data stage leaves it."""
    from jobs import dataset
    from launcher.core.job import Job
    from launcher.schema import Collect, Dataset, RunConfig, Task
    from launcher.schema_train import Train
    from tests.rdt import synthetic

    config = RunConfig(
        name="benchmark",
        seed=SEED,
        task=Task(camera_size=128),
        collect=Collect(demos=4),
        train=Train.model_validate({"model": model, **train}),
        dataset=Dataset(held_out=held_out),
    )
    files.write_json(run / "plan.json", {"config": config.model_dump(mode="json")})
    synthetic.write_parts(run / "data/parts", 4, steps=96, size=128)
    with contextlib.redirect_stdout(sys.stderr):  # ours has the result only
        dataset.body(Job.from_environment(str(run)))


def start(
    module: str,
    run: Path,
    *arguments: str,
    node: int = 0,
    nodes: int = 1,
    address: str = "127.0.0.1",
    port: int = 0,
) -> list[str]:
    """Command of one node's rank: ``env … python -m jobs.ranks 1 benchmarks.MODULE RUN …``."""
    variables = {
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port or free_port()),
        "NODE_RANK": str(node),
        "NNODES": str(nodes),
        "RDTL_STAGE": "train",
        "RDTL_ERROR_FILE": str(run / f"error.{node}.json"),
        BEGAN: str(time.monotonic()),
    }
    if nodes > 1:
        variables["GLOO_SOCKET_IFNAME"] = DEVICE
    told = [f"{name}={value}" for name, value in variables.items()]
    ranks = ["-P", "-m", "jobs.ranks", "1", f"benchmarks.{module}", str(run), *arguments]
    return ["env", *told, sys.executable, *ranks]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def finished(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Wait for processes that must succeed; what the last one said is shown when one does not."""
    said = [process.communicate()[0] for process in processes]
    for process, text in zip(processes, said, strict=True):
        if process.returncode:
            raise SystemExit(f"{process.args!r}: {process.returncode}\n{text[-4000:]}")


def popen(argv: list[str]) -> subprocess.Popen[str]:
    """Start with both outputs kept."""
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
