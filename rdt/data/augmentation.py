"""Pictures made worse as in the pre-training of RDT, on the device where they are.

A chosen picture is corrupted, or its colours are jittered, or both. Corrupted: one noise
and, half of the time, one blur, either first. All numbers come from one row of draws, so a
picture is changed alike in any batch and by any process. Pictures are (3, h, w) float32 of
0 … 255 here; each step rounds, as image libraries do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rdt.data import draws

BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.3, 0.4, 0.5, 0.03
NOISE = 0.05 * 255
GREY_OF_RGB = (0.299, 0.587, 0.114)
POISSON_COUNTS = 64  # of a mean of at most 12.75: what is beyond comes once in 1e20
ORDERS = list(permutations(range(4)))
KINDS = ("corrupt", "jitter", "both")
NOISES = ("gaussian", "laplace", "poisson")
BLURS = ("gaussian", "average", "median")


class Draws(NamedTuple):
    """Numbers in [0, 1) that decide what happens to one picture."""

    chosen: float
    kind: float
    blur_first: float
    noise: float
    noise_strength: float
    per_channel: float
    blurred: float
    motion: float
    blur: float
    blur_size: float
    motion_angle: float
    motion_direction: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    order: float


def chosen(number: float, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high`` inclusive out of one in [0, 1)."""
    return low + int(number * (high - low + 1))


def augmented(picture: Tensor, draw: Draws, key: int) -> Tensor:
    """``picture`` (h, w, 3) uint8 changed as ``draw`` says, with pixels' noise from ``key``."""
    kind = KINDS[chosen(draw.kind, 0, 2)]
    out = picture.permute(2, 0, 1).float()
    if kind != "corrupt":
        out = jittered(out, draw)
    if kind != "jitter":
        out = corrupted(out, draw, key)
    return out.to(torch.uint8).permute(1, 2, 0)


def corrupted(picture: Tensor, draw: Draws, key: int) -> Tensor:
    """One noise and at most one blur."""
    if draw.blur_first < 0.5:
        return noisy(blurred(picture, draw), draw, key)
    return blurred(noisy(picture, draw, key), draw)


def noisy(picture: Tensor, draw: Draws, key: int) -> Tensor:
    """With noise of a strength up to 5 %, for each channel its own or one for all."""
    shape = (3 if draw.per_channel < 0.5 else 1, *picture.shape[1:])
    first = draws.pixels(key, shape, picture.device)
    second = draws.pixels(key ^ (1 << 63), shape, picture.device)
    strength = NOISE * draw.noise_strength
    match NOISES[chosen(draw.noise, 0, 2)]:
        case "gaussian":
            noise = strength * torch.sqrt(-2 * torch.log(first)) * torch.cos(math.tau * second)
        case "laplace":
            side = first - 0.5
            noise = -strength * torch.sign(side) * torch.log(1 - 2 * side.abs())
        case _:
            noise = _poisson(strength, first) * torch.where(second < 0.5, -1.0, 1.0)
    return _rounded(picture + noise)


def _poisson(mean: float, numbers: Tensor) -> Tensor:
    terms = [math.exp(-mean)]
    for count in range(1, POISSON_COUNTS):
        terms.append(terms[-1] * mean / count)
    below = torch.tensor(terms, dtype=torch.float64).cumsum(0).float()
    return torch.searchsorted(below.to(numbers.device), numbers).float()


def blurred(picture: Tensor, draw: Draws) -> Tensor:
    """Half of the time as it is, else moved or out of focus, edges repeated."""
    if draw.blurred >= 0.5:
        return picture
    if draw.motion < 0.5:
        size = chosen(draw.blur_size, 3, 36) | 1
        return _convolved(picture, motion_kernel(size, draw.motion_angle, draw.motion_direction))
    match BLURS[chosen(draw.blur, 0, 2)]:
        case "gaussian":
            return _convolved(picture, gaussian_kernel(3 * draw.blur_size))
        case "average":
            size = chosen(draw.blur_size, 2, 7)
            return _convolved(picture, torch.full((size, size), 1 / size**2))
        case _:
            return _median(picture, chosen(draw.blur_size, 3, 11) | 1)


def gaussian_kernel(sigma: float) -> Tensor:
    """(k, k), sum 1; ``sigma`` in pixels."""
    reach = max(1, math.ceil(3 * sigma))
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / max(sigma, 1e-3)) ** 2)
    kernel = line[:, None] * line
    return kernel / kernel.sum()


def motion_kernel(size: int, angle: float, direction: float) -> Tensor:
    """(size, size), sum 1: a line through the middle, ``angle`` in turns.

    ``direction`` 0 … 1: how its weight is shared between one end and the other.
    """
    middle = (size - 1) / 2
    along = torch.arange(size) - middle
    weight = torch.linspace(direction, 1 - direction, size)
    rows = middle + along * math.sin(math.tau * angle)
    columns = middle + along * math.cos(math.tau * angle)
    grid = torch.arange(size)
    near_rows = (1 - (rows[:, None] - grid).abs()).clamp(min=0)
    near_columns = (1 - (columns[:, None] - grid).abs()).clamp(min=0)
    kernel = torch.einsum("n,nr,nc->rc", weight, near_rows, near_columns)
    return kernel / kernel.sum()


def _padded(picture: Tensor, size: int) -> Tensor:
    before, after = size // 2, size - 1 - size // 2
    return functional.pad(picture[None], (before, after, before, after), mode="replicate")[0]


def _convolved(picture: Tensor, kernel: Tensor) -> Tensor:
    padded = _padded(picture, len(kernel))[:, None]
    return _rounded(functional.conv2d(padded, kernel.to(picture)[None, None])[:, 0])


def _median(picture: Tensor, size: int) -> Tensor:
    """Found bit by bit: some 8 times as fast as sorting every window."""
    windows = _padded(picture, size).to(torch.uint8).unfold(1, size, 1).unfold(2, size, 1)
    values = windows.permute(3, 4, 0, 1, 2).flatten(0, 1)  # (size², 3, h, w)
    median = torch.zeros_like(values[0])
    for bit in (128, 64, 32, 16, 8, 4, 2, 1):
        below = (values < median + bit).sum(0, dtype=torch.int16)
        median = torch.where(below <= size**2 // 2, median + bit, median)
    return median.float()


def jittered(picture: Tensor, draw: Draws) -> Tensor:
    """Brightness, contrast, saturation and hue changed, in any order."""

    def factor(number: float, reach: float) -> float:
        return 1 + reach * (2 * number - 1)

    steps: list[Callable[[Tensor], Tensor]] = [
        lambda out: out * factor(draw.brightness, BRIGHTNESS),
        lambda out: _blended(out, _grey(out).mean(), factor(draw.contrast, CONTRAST)),
        lambda out: _blended(out, _grey(out), factor(draw.saturation, SATURATION)),
        lambda out: _turned(out, HUE * (2 * draw.hue - 1)),
    ]
    for number in ORDERS[chosen(draw.order, 0, len(ORDERS) - 1)]:
        picture = _rounded(steps[number](picture))
    return picture


def _grey(picture: Tensor) -> Tensor:
    return torch.einsum("chw,c->hw", picture, picture.new_tensor(GREY_OF_RGB))


def _blended(picture: Tensor, other: Tensor, factor: float) -> Tensor:
    return factor * picture + (1 - factor) * other


def _turned(picture: Tensor, turns: float) -> Tensor:
    """The hue turned by ``turns``; value and saturation stay."""
    high, low = picture.amax(0), picture.amin(0)
    spread = (high - low).clamp(min=1e-6)
    red, green, blue = picture
    hue = torch.where(
        high == red,
        (green - blue) / spread,
        torch.where(high == green, 2 + (blue - red) / spread, 4 + (red - green) / spread),
    )
    places = (hue / 6 + turns) * 6
    shifted = torch.stack([(places + offset) % 6 for offset in (5, 3, 1)])
    ramp = torch.minimum(shifted, 4 - shifted).clamp(0, 1)
    return high - (high - low) * ramp


def _rounded(picture: Tensor) -> Tensor:
    return picture.round().clamp(0, 255)
