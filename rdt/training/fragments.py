"""What of the float32 master weights a rank owns, parameter by parameter.

ZeRO cuts the master weights among the ranks; without it every rank has all, and each
parameter is counted as one rank's. Together the fragments of all ranks are every
trained parameter once, whatever the stage and the number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import deepspeed
import torch
import torch.distributed as dist
from torch import Tensor, nn


class Fragment(NamedTuple):
    """Numbers ``start`` … of the flattened parameter ``name``.

    ``values`` (n,) float32 is a view: it changes with every optimizer step.
    """

    name: str
    start: int
    values: Tensor


def owned(module: nn.Module) -> list[Fragment]:
    """The fragments of this rank, in the order of the parameters. After deepspeed.initialize."""
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    found = []
    for index, (name, parameter) in enumerate(trained):
        if hasattr(parameter, "ds_id"):
            found.append(_of_stage_3(name, parameter))
        elif hasattr(parameter, "_hp_mapping"):
            found.append(_of_stages_1_and_2(name, parameter))
        elif index % dist.get_world_size() == dist.get_rank():
            found.append(Fragment(name, 0, parameter.detach().view(-1)))
    return [fragment for fragment in found if fragment is not None and len(fragment.values)]


def _of_stages_1_and_2(name: str, parameter: nn.Parameter) -> Fragment | None:
    mapping = parameter._hp_mapping  # type: ignore[attr-defined]
    if mapping is None:  # another rank's
        return None
    return Fragment(name, mapping.lp_fragment_address.start, mapping.hp_fragment)


def _of_stage_3(name: str, parameter: nn.Parameter) -> Fragment:
    # Not safe_get_local_fp32_param: of weights that are offloaded it gives a copy on the GPU,
    # which no step changes any more.
    optimizer = parameter._z3_optimizer  # type: ignore[attr-defined]
    part, _ = optimizer._get_fp32_opt_state_partition(parameter, release_swap_buffers=True)
    start = dist.get_rank() * len(part)  # equal parts, the last ones filled up
    real = max(0, min(len(part), parameter.ds_numel - start))  # type: ignore[attr-defined]
    return Fragment(name, start, part[:real])


def joined(
    module: nn.Module, fragments: Sequence[Fragment], device: torch.device
) -> dict[str, Tensor] | None:
    """The whole float32 parameters from the fragments of all ranks, in memory of the CPU.

    On rank 0; None on the others. Every rank calls this. Frozen parameters are as in the
    module. One parameter at a time is on ``device``.
    """
    mine = {fragment.name: fragment for fragment in fragments}
    whole = {}
    for name, parameter in module.named_parameters():
        shape = getattr(parameter, "ds_shape", parameter.shape)
        if parameter.requires_grad:
            full = torch.zeros(shape.numel(), device=device)
            if name in mine:
                _, start, values = mine[name]
                full[start : start + len(values)] = values
            dist.reduce(full, 0)
        else:
            full = gathered(parameter).float().flatten()
        if dist.get_rank() == 0:
            whole[name] = full.view(shape).to("cpu", copy=True)
    return whole if dist.get_rank() == 0 else None


def gathered(parameter: nn.Parameter) -> Tensor:
    """A copy of the whole parameter as the module computes with it, on every rank."""
    if not hasattr(parameter, "ds_id"):
        return parameter.detach().clone()
    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()
