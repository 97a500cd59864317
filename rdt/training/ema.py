"""Exponential moving average of the weights, the copy that is evaluated.

It is float32 and advances once per optimizer step: in bf16 late updates round
away to nothing, and counting micro steps makes it another average (RDTL-T002,
RDTL-T003). Every rank averages the float32 master weights that it owns, so a step
needs no communication and the average no more memory than one rank's share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from rdt.training.fragments import Fragment

CEILING = 0.9999


def decay(calls: int, power: float) -> float:
    """Share of the old average kept in call number ``calls`` (from 0): 0, 0, then rising."""
    step = calls - 1
    if step <= 0:
        return 0.0
    return min(max(1 - (1 + step) ** -power, 0.0), CEILING)


class Ema:
    """The average of the fragments that this rank owns; ``calls`` is saved with it."""

    def __init__(self, owned: Sequence[Fragment], power: float) -> None:
        self.power = power
        self.calls = 0
        self._weights = [fragment.values for fragment in owned]
        self.fragments = [fragment._replace(values=fragment.values.clone()) for fragment in owned]
        self._averages = [fragment.values for fragment in self.fragments]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the weights after an optimizer step."""
        if self._averages:  # with few parameters a rank may own nothing
            share = 1 - decay(self.calls, self.power)
            torch._foreach_lerp_(self._averages, self._weights, share)
        self.calls += 1

    @torch.no_grad()
    def load(self, path: Path, calls: int, stored: Callable[[str], str] = str) -> None:
        """Continue from a file of whole averages, by whatever number of ranks it was made.

        ``stored`` says what the file calls a parameter. Raises SafetensorError when one is
        missing.
        """
        with safe_open(path, framework="pt") as file:
            for name, start, values in self.fragments:
                whole = file.get_tensor(stored(name))
                values.copy_(whole.flatten()[start : start + len(values)])
        self.calls = calls
