"""The noise schedule and the sampler of RDT: squared cosine, DPM-Solver++ 2M.

The network predicts the clean actions (target `sample`, all published models) or
the noise (`epsilon`). All schedule numbers are float32; samples are (B, H, D) in the
dtype of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

TRAIN_STEPS = 1000
Target = Literal["sample", "epsilon"]


def cosine_betas() -> Tensor:
    """β of the 1000 training steps, (1000,) float32: squared cosine, capped at 0.999."""

    def left(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    steps = [
        min(1 - left((i + 1) / TRAIN_STEPS) / left(i / TRAIN_STEPS), 0.999)
        for i in range(TRAIN_STEPS)
    ]
    return torch.tensor(steps, dtype=torch.float32)


def alphas_cumprod() -> Tensor:
    """ᾱ of the training steps, (1000,) float32."""
    return torch.cumprod(1.0 - cosine_betas(), dim=0)


def add_noise(alphas: Tensor, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """√ᾱ_t · clean + √(1 − ᾱ_t) · noise; ``t`` (B,) int64.

    ᾱ is cast to the samples' dtype first, as the reference does: in bf16 it rounds.
    """
    alpha = alphas.to(device=clean.device, dtype=clean.dtype)[t].view(-1, 1, 1)
    return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise


def target(kind: Target, clean: Tensor, noise: Tensor) -> Tensor:
    """What the network is trained to say."""
    return clean if kind == "sample" else noise


def sampling_timesteps(steps: int) -> Tensor:
    """Training timesteps at which the network is asked, descending, (steps,) int64."""
    spaced = torch.linspace(0, TRAIN_STEPS - 1, steps + 1, dtype=torch.float64)
    return spaced.round().flip(0)[:-1].to(torch.int64)


class DpmSolver:
    """DPM-Solver++ of second order (midpoint) over ``steps`` evaluations of the network.

    One instance serves one chunk: it remembers the previous estimate. Its numbers stay
    on the CPU, whatever device the samples are on.
    """

    def __init__(self, alphas: Tensor, steps: int, kind: Target = "sample") -> None:
        self.timesteps = sampling_timesteps(steps)
        self.kind = kind
        alpha_bar = alphas.cpu()[self.timesteps]
        zero = torch.zeros(1, dtype=alphas.dtype)
        self.sigmas = torch.cat([((1 - alpha_bar) / alpha_bar).sqrt(), zero])
        self._alpha = 1 / (self.sigmas**2 + 1).sqrt()
        self._sigma = self.sigmas * self._alpha
        self._lambda = self._alpha.log() - self._sigma.log()  # +inf at the end, never divided by
        self._previous: Tensor | None = None

    def step(self, index: int, said: Tensor, x: Tensor) -> Tensor:
        """The sample after evaluation ``index``, in which the network said ``said`` of ``x``.

        The first step is of first order for want of history, the last one because
        its noise is zero: it returns the last estimate.
        """
        clean = said
        if self.kind == "epsilon":
            clean = (x - self._sigma[index] * said) / self._alpha[index]
        width = self._lambda[index + 1] - self._lambda[index]
        estimate = clean
        if self._previous is not None and index + 1 < len(self.timesteps):
            before = self._lambda[index] - self._lambda[index - 1]
            estimate = clean + 0.5 * (clean - self._previous) * (width / before)
        self._previous = clean
        ratio = self._sigma[index + 1] / self._sigma[index]
        weight = self._alpha[index + 1] * (torch.exp(-width) - 1)
        return (ratio * x.float() - weight * estimate).to(clean.dtype)


def sample(
    denoise: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    alphas: Tensor,
    steps: int,
    kind: Target = "sample",
) -> Tensor:
    """Clean actions (B, H, D) from ``noise`` of that shape.

    ``denoise(x, t)`` estimates the clean actions, or the noise if ``kind`` says so; t is
    (1,) int64.
    """
    solver = DpmSolver(alphas, steps, kind)
    x = noise
    for index, t in enumerate(solver.timesteps):
        x = solver.step(index, denoise(x, t[None].to(noise.device)), x)
    return x
