"""The first-step gate: what must be right before days are spent, in one table.

What differs between ranks or would train something else is refused before the first step;
what only the first step can show is looked at after it. The table is printed and kept in
the ledger as ``gate.train.ROUND``.
"""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
import torch.distributed as dist

from launcher.core import files
from launcher.core.errors import RdtlError
from launcher.core.job import Job
from rdt.spec import recipe
from rdt.training import engine as distributed

PACKAGES = ("torch", "deepspeed", "numpy", "safetensors")
REDUCED_NUMBERS = 1 << 20
Row = tuple[str, str]


def here(device: torch.device, image: str) -> dict[str, str]:
    """What this rank runs on: host, device with its serial number, image, versions."""
    found = {"host": socket.gethostname(), "device": str(device), "image": image}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["device"] = f"{properties.name} {properties.uuid}"
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    found["python"] = platform.python_version()
    return found | {name: version(name) for name in PACKAGES}


def require_alike(ranks: Sequence[dict[str, str]]) -> None:
    """Refuse ranks that would not compute the same, or that share a GPU.

    Raises RdtlError RDTL-T028 for another version, image or kind of device, RDTL-T066 for
    a GPU that two ranks use.
    """
    for name in sorted({name for rank in ranks for name in rank} - {"host", "device"}):
        values = {rank.get(name, "none") for rank in ranks}
        if len(values) > 1:
            raise _unlike(name, [rank.get(name, "none") for rank in ranks])
    kinds = [rank["device"].partition(" ")[0] for rank in ranks]
    if len(set(kinds)) > 1 and "cpu" in kinds:
        raise _unlike("device", [rank["device"] for rank in ranks])
    gpus = [(rank["host"], rank["device"]) for rank in ranks if rank["device"] != "cpu"]
    for gpu in gpus:
        if gpus.count(gpu) > 1:
            raise RdtlError(
                "RDTL-T066",
                "two ranks compute on one GPU",
                where=f"{gpu[0]}: {gpu[1]}",
                why="each has half of its speed and memory, and others stand idle",
                fix="start as many ranks per node as there are GPUs (train.ranks_per_node)",
            )


def _unlike(name: str, values: list[str]) -> RdtlError:
    return RdtlError(
        "RDTL-T028",
        f"the ranks differ in {name}",
        where=", ".join(f"rank {rank}: {value}" for rank, value in enumerate(values)),
        why="they would compute different numbers, or wait for each other for ever",
        fix="use one image, or the same installation, on all nodes",
    )


def all_reduce(device: torch.device) -> Row:
    """Sum a tensor over all ranks and time it; RdtlError RDTL-T067 when the sum is wrong."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    tensor = torch.full((REDUCED_NUMBERS,), float(rank + 1), device=device)
    dist.all_reduce(tensor[:1].clone())  # the first one makes the connections
    began = time.perf_counter()
    dist.all_reduce(tensor)
    total = float(tensor[-1])  # on a GPU this waits for it
    took = time.perf_counter() - began
    if not bool((tensor == ranks * (ranks + 1) / 2).all()):
        raise RdtlError(
            "RDTL-T067",
            "an exchange between the ranks gives wrong numbers",
            where=f"rank {rank}: {total} instead of {ranks * (ranks + 1) / 2}",
            why="every gradient would be wrong",
            fix="run the same command on other nodes, and report these with the log",
        )
    size = REDUCED_NUMBERS * 4 / 1e6
    return "all-reduce", f"{size:.1f} MB over {ranks} ranks in {1000 * took:.1f} ms"


class Gate:
    """Rows of the table are collected on every rank; rank 0 prints and keeps them."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self._job, self._device = job, device
        self._train: dict[str, Any] = job.config["train"]
        self.rows: list[Row] = []

    def machines(self) -> None:
        """Compare the ranks and let them talk; raises what :func:`require_alike` and
        :func:`all_reduce` do."""
        ranks = distributed.gather(here(self._device, self._image()))
        distributed.by_first(lambda: require_alike(ranks))
        for rank, found in enumerate(ranks):
            self.rows.append((f"rank {rank}", f"{found['host']} {found['device']}"))
        same = {name: ranks[0][name] for name in ranks[0] if name not in ("host", "device")}
        self.rows.append(("versions", ", ".join(f"{k} {v}" for k, v in same.items())))
        self.rows.append(all_reduce(self._device))

    def _image(self) -> str:
        """Digest of the image that the plan names, by which each node has proven its copy."""
        for stage in files.read_json(self._job.run.plan).get("stages", []):
            if stage["name"] == self._job.stage and stage["container"]:
                return str(stage["container"]["sha256"])
        return "none"

    def recipe(self, total: int | None, warmup: int) -> None:
        """Batch and length; what is unusual about them is said."""
        train = self._train
        ranks = dist.get_world_size()
        batch = f"{train['micro_batch']} x {train['accumulation']} x {ranks} ranks"
        self.rows.append(("effective batch", f"{train['effective_batch']} = {batch}"))
        length = f"{total} steps" if total else "to be measured"
        share = f", {warmup / total:.1%} of them warm-up" if total else ""
        self.rows.append(("length", length + share))
        order = recipe.order_findings(self._job.config["dataset"])
        for finding in [*recipe.findings(train | {"warmup_steps": warmup}, total), *order]:
            self.rows.append((f"{finding.severity} {finding.code}", finding.what))

    def after_step(self, loss: float, digest: str, seconds: float, left: int) -> None:
        """The first step of this start is done; ``left`` are still to do."""
        self.rows.append(("weights after it", f"{digest} on all ranks"))
        limits = self._train["first_loss"]
        self.rows.append(("first loss", f"{loss:.5f}" + (f", expected {limits}" if limits else "")))
        if limits and not limits[0] <= loss <= limits[1]:
            self.rows.append(("warning RDTL-T019", "the first loss is out of the recipe's range"))
        speed = self._train["effective_batch"] / seconds
        self.rows.append(("first step", f"{seconds:.2f} s, {speed:.1f} samples/s"))
        self.rows.append(("at this speed", f"{left * seconds / 3600:.2f} hours to the end"))

    def show(self) -> None:
        """Print the table and keep it; rank 0 only."""
        if dist.get_rank():
            return
        width = max(len(name) for name, _ in self.rows)
        lines = [f"  {name:<{width}}  {value}" for name, value in self.rows]
        print("\n".join(["first step:", *lines]), flush=True)
        self._job.run.ledger.publish(
            f"gate.{self._job.stage}.{self._job.round}", rows=[list(row) for row in self.rows]
        )
