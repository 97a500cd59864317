"""DeepSpeed and the process group: the only place that knows either.

Ranks come from jobs.ranks or torch.distributed.run (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_*).
Decisions that must be the same everywhere are taken by rank 0 and told to the
others (:func:`agree`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from torch import Tensor, nn

from launcher.core.errors import RdtlError

# DeepSpeed compiles a shared-memory all-reduce at the first CPU start: one to two minutes
# of g++, and a lock file that blocks every later start when it is killed in between.
# Gloo does the same work without it. The name is private to DeepSpeed 0.19.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

BETAS = (0.9, 0.999)
EPSILON = 1e-8
RENDEZVOUS_TIMEOUT = timedelta(minutes=10)


def start() -> tuple[int, int, torch.device]:
    """Join the process group: (rank, ranks, device).

    On a CPU each rank gets one thread: ranks share the cores, and sums over several
    threads would depend on how many there are.
    """
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


def barrier() -> None:
    """Wait for all ranks."""
    dist.barrier()


def agree(value: Any) -> Any:
    """Rank 0's value on every rank (small picklable data among our own processes)."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


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
    """Forward, backward, clipping and AdamW of one rank."""

    def __init__(self, module: nn.Module, train: dict[str, Any]) -> None:
        self.module = module
        self.accumulation: int = train["accumulation"]
        # Messages of every start-up detail would bury the loss lines.
        deepspeed.logger.setLevel("WARNING")
        self.deepspeed, *_ = deepspeed.initialize(
            model=module, model_parameters=module.parameters(), config=deepspeed_config(train)
        )

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
            self.deepspeed.step()
        return share

    def gradient_norm(self) -> float:
        """Global gradient norm of the last step, before clipping."""
        return float(self.deepspeed.get_global_grad_norm())

    def require_equal_weights(self, step: int) -> None:
        """Raise RdtlError RDTL-T016 when the ranks hold different weights."""
        digests: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(digests, weights_digest(self.module))
        if len(set(digests)) > 1:
            raise RdtlError(
                "RDTL-T016",
                f"the ranks hold different weights after step {step}",
                where=f"digests by rank: {', '.join(digests)}",
                why="gradients are not exchanged: every rank trains alone on its share",
                fix="report this with the log; do not use the checkpoints of this run",
            )


def deepspeed_config(train: dict[str, Any]) -> dict[str, Any]:
    """DeepSpeed's configuration from the ``train`` section of ours."""
    return {
        "train_batch_size": train["effective_batch"],
        "train_micro_batch_size_per_gpu": train["micro_batch"],
        "gradient_accumulation_steps": train["accumulation"],
        # Here and nowhere else: a clip outside DeepSpeed silently does nothing.
        "gradient_clipping": train["gradient_clipping"],
        "zero_optimization": {"stage": train["zero_stage"]},
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": train["learning_rate"],
                "betas": BETAS,
                "eps": EPSILON,
                "weight_decay": train["weight_decay"],
                "torch_adam": True,  # the fused one is compiled at run time
            },
        },
    }


def weights_digest(module: nn.Module) -> str:
    """Twelve hex digits over the bytes of all parameters."""
    digest = hashlib.sha256()
    for parameter in module.parameters():
        tensor: Tensor = parameter.detach().cpu().contiguous()
        digest.update(tensor.view(torch.uint8).numpy())
    return digest.hexdigest()[:12]
