"""Position tables and the embedder of timestep and control frequency.

Tables are computed in float64, stored in float32 and trained. An axis of a grid
may carry a negative length: that many tokens share one position. Shapes: h is
the width of the transformer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

FREQUENCIES = 256
Axes = int | Sequence[int]


def sincos(positions: Tensor, width: int) -> Tensor:
    """Positions (n,) to (n, width) float64: sines of all frequencies, then cosines."""
    frequencies = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = positions.to(torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def grid(axes: Axes, width: int) -> Tensor:
    """Table (product of the lengths, width) of a grid; a plain number is a line.

    Axes longer than one share the width equally (made even), what is left stays 0.
    """
    if isinstance(axes, int):
        line = sincos(torch.arange(max(axes, 1)), width)
        return line.expand(abs(axes), width) if axes < 0 else line
    lengths = [length if length > 0 else 1 for length in axes]
    active = sum(length > 1 for length in lengths)
    share = width // active // 2 * 2 if active else 0
    table = torch.zeros(*lengths, width, dtype=torch.float64)
    start = 0
    for axis, length in enumerate(lengths):
        if length > 1:
            shape = [1] * len(lengths) + [share]
            shape[axis] = length
            table[..., start : start + share] = sincos(torch.arange(length), share).view(shape)
            start += share
    return table.expand(*[abs(length) for length in axes], width).reshape(-1, width)


def condition_table(config: Sequence[Sequence] | None, length: int, width: int) -> Tensor:
    """Initial `lang_cond_pos_embed` or `img_cond_pos_embed`: (1, length, width) float32.

    ``config`` is e.g. ``[["image", [2, 3, -729]]]``; None means a line of ``length``.
    Raises ValueError when the grids do not have ``length`` tokens.
    """
    parts = [grid(axes, width) for _, axes in config] if config else [grid(length, width)]
    table = torch.cat(parts).to(torch.float32)
    if len(table) != length:
        raise ValueError(f"position config {config!r} has {len(table)} tokens, not {length}")
    return table[None]


def token_table(horizon: int, width: int) -> Tensor:
    """Initial `x_pos_embed`: (1, horizon + 3, width) float32.

    First half: which modality (timestep, control frequency, state, action);
    second half: position within the modality.
    """
    lengths = [1, 1, 1, horizon]
    modality = torch.cat([torch.full((n,), float(i)) for i, n in enumerate(lengths)])
    position = torch.cat([torch.arange(n) for n in lengths])
    halves = [sincos(modality, width // 2), sincos(position, width // 2)]
    return torch.cat(halves, dim=1).to(torch.float32)[None]


class NumberEmbedder(nn.Module):
    """A number per sample (diffusion step or control frequency in Hz) to (B, h)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    @staticmethod
    def features(numbers: Tensor) -> Tensor:
        """(B,) to (B, 256) float32: cosines, then sines (the other order than the tables)."""
        half = FREQUENCIES // 2
        scale = -math.log(10000.0) / half
        frequencies = torch.exp(
            scale * torch.arange(half, dtype=torch.float32, device=numbers.device)
        )
        angles = numbers[:, None].float() * frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=1)

    def forward(self, numbers: Tensor) -> Tensor:
        return self.mlp(self.features(numbers).to(self.mlp[0].weight.dtype))
