"""Exponential moving average of the weights, the copy that is evaluated.

It is float32 and advances once per optimizer step: in bf16 late updates round
away to nothing, and counting micro steps makes it another average (RDTL-T002,
RDTL-T003).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

CEILING = 0.9999


def decay(calls: int, power: float) -> float:
    """Share of the old average kept in call number ``calls`` (from 0): 0, 0, then rising."""
    step = calls - 1
    if step <= 0:
        return 0.0
    return min(max(1 - (1 + step) ** -power, 0.0), CEILING)


class Ema:
    """The average of a module's parameters; ``calls`` is saved with it."""

    def __init__(self, module: nn.Module, power: float) -> None:
        self.power = power
        self.calls = 0
        self._names = [name for name, _ in module.named_parameters()]
        self._average = [p.detach().to(torch.float32, copy=True) for p in module.parameters()]

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move towards the weights after an optimizer step."""
        weights = [parameter.detach().float() for parameter in module.parameters()]
        torch._foreach_lerp_(self._average, weights, 1 - decay(self.calls, self.power))
        self.calls += 1

    def state(self) -> dict[str, Tensor]:
        """Parameter name to float32 average."""
        return dict(zip(self._names, self._average, strict=True))

    def load(self, state: Mapping[str, Tensor], calls: int) -> None:
        """Continue from a saved average; KeyError when a parameter is missing."""
        for name, average in self.state().items():
            average.copy_(state[name])
        self.calls = calls
