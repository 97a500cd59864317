"""DeepSpeed and the process group: the only place that knows either.

Ranks come from jobs.ranks or torch.distributed.run (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_*).
Decisions that must be the same everywhere are taken by rank 0 and told to the
others (:func:`agree`).
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from torch import nn

from launcher.core.errors import RdtlError, file_system
from rdt.spec import deepspeed as settings
from rdt.training import extensions, fragments

# DeepSpeed compiles a shared-memory all-reduce at the first CPU start: one to two minutes
# of g++, and a lock file that blocks every later start when it is killed in between.
# Gloo does the same work without it. The name is private to DeepSpeed 0.19.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

RENDEZVOUS_TIMEOUT = timedelta(minutes=10)
WRITING_TIMEOUT = timedelta(hours=2)
"""How much longer than the fastest rank the slowest may take to write its part."""

Result = TypeVar("Result")


def start() -> tuple[int, int, torch.device]:
    """Join the process group: (rank, ranks, device).

    On a CPU each rank gets one thread: ranks share the cores, and sums over several
    threads would depend on how many there are.
    """
    extensions.prepare()
    accelerator = get_accelerator()
    if accelerator.device_name() == "cpu":
        torch.set_num_threads(1)
        device = torch.device("cpu")
    else:
        local = int(os.environ["LOCAL_RANK"])
        accelerator.set_device(local)
        device = torch.device(accelerator.device_name(local))
    deepspeed.init_distributed(
        dist_backend=accelerator.communication_backend_name() if device.type != "cpu" else "gloo",
        auto_mpi_discovery=False,
        timeout=RENDEZVOUS_TIMEOUT,
        verbose=False,
    )
    return dist.get_rank(), dist.get_world_size(), device


def stop() -> None:
    """Leave the process group."""
    dist.destroy_process_group()


def rank() -> int:
    """This process's number among all ranks."""
    return dist.get_rank()


def barrier() -> None:
    """Wait for all ranks."""
    dist.barrier()


def second_group() -> Any:
    """All ranks once more, over the CPU: for one thread beside the training loop."""
    return dist.new_group(backend="gloo", timeout=WRITING_TIMEOUT)


def agree(value: Any, group: Any = None) -> Any:
    """Rank 0's value on every rank (small picklable data among our own processes)."""
    box = [value]
    dist.broadcast_object_list(box, src=0, group=group)
    return box[0]


def gather(value: Any, group: Any = None) -> list[Any]:
    """The values of all ranks, by rank, on every rank."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value, group=group)
    return values


def by_first(work: Callable[[], Result], group: Any = None) -> Result:
    """Let rank 0 do ``work``; every rank returns its result or raises its RdtlError.

    What the file system refuses becomes one, too.
    """
    result, error = None, None
    if dist.get_rank() == 0:
        try:
            result = work()
        except RdtlError as caught:
            error = caught
        except OSError as caught:  # the others wait for an answer
            error = file_system(caught, "rank 0 was at work for all ranks")
    result, error = agree((result, error), group)
    if error is not None:
        raise error
    return result


def total(value: float) -> float:
    """Sum over the ranks, the same float on each."""
    return _reduced(value, dist.ReduceOp.SUM)


def most(value: float) -> float:
    """The largest value of any rank, the same float on each."""
    return _reduced(value, dist.ReduceOp.MAX)


def _reduced(value: float, how: Any) -> float:
    tensor = torch.tensor([value], dtype=torch.float64)
    if get_accelerator().device_name() != "cpu":
        tensor = tensor.to(get_accelerator().current_device_name())
    dist.all_reduce(tensor, how)
    return float(tensor.item())


class Engine:
    """Forward, backward, clipping and AdamW of one rank.

    With ``dtype`` bf16 the weights and their gradients between ranks are bf16, the master
    weights, the sums of micro steps and the loss float32.
    """

    def __init__(self, module: nn.Module, train: dict[str, Any], device: torch.device) -> None:
        self.module = module
        self.device = device
        self.stage: int = train["zero_stage"]
        self.accumulation: int = train["accumulation"]
        self._norm = 0.0
        # Messages of every start-up detail would bury the loss lines.
        deepspeed.logger.setLevel("WARNING")
        warnings.filterwarnings("ignore", "`torch.distributed.*deprecated", FutureWarning)
        # Inside the engine: around it, DeepSpeed switches it off where there is a GPU.
        precision = torch.autocast(device.type, torch.bfloat16, enabled=train["dtype"] == "bf16")
        module.forward = precision(module.forward)  # type: ignore[method-assign]
        constants = [(buffer, buffer.clone()) for buffer in module.buffers()]
        self.deepspeed, *_ = deepspeed.initialize(
            model=module,
            model_parameters=[p for p in module.parameters() if p.requires_grad],
            config=settings.config(train),
        )
        for buffer, exact in constants:  # DeepSpeed rounds them like weights
            buffer.data = exact.to(buffer.device)

    def step(self, micro_batches: Iterable[Any], learning_rate: float) -> float:
        """One optimizer step; returns this rank's share of the loss (their sum is the loss).

        Micro batches carry weights that add up to 1 over all ranks and micro steps,
        whereas DeepSpeed averages over both: hence the factor.
        """
        factor = self.accumulation * dist.get_world_size()
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = learning_rate
        share = 0.0
        for batch in micro_batches:
            loss = self.deepspeed(batch)
            share += float(loss.detach())
            self.deepspeed.backward(loss * factor)
            if self.stage == 0 and self.deepspeed.is_gradient_accumulation_boundary():
                self._norm = self._unclipped()
            self.deepspeed.step()
        return share

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, the network computes as in training, but keeps no gradients and drops nothing."""
        self.deepspeed.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.deepspeed.train()

    def _unclipped(self) -> float:
        """Without ZeRO, DeepSpeed clips and does not say from what norm."""
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def gradient_norm(self) -> float:
        """Global gradient norm of the last step, before clipping."""
        return self._norm if self.stage == 0 else float(self.deepspeed.get_global_grad_norm())

    def owned(self) -> list[fragments.Fragment]:
        """This rank's part of the float32 master weights."""
        return fragments.owned(self.module)

    def require_equal_weights(self, step: int) -> str:
        """The digest of the weights; RdtlError RDTL-T016 when the ranks hold different ones."""
        digests = gather(weights_digest(self.module))
        if len(set(digests)) > 1:
            raise RdtlError(
                "RDTL-T016",
                f"the ranks hold different weights after step {step}",
                where=f"digests by rank: {', '.join(digests)}",
                why="gradients are not exchanged: every rank trains alone on its share",
                fix="report this with the log; do not use the checkpoints of this run",
            )
        return str(digests[0])


def weights_digest(module: nn.Module) -> str:
    """Twelve hex digits over the bytes of all parameters."""
    digest = hashlib.sha256()
    for parameter in module.parameters():
        tensor = fragments.gathered(parameter).cpu().contiguous()
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:12]
