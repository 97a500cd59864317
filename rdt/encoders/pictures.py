"""Camera pictures as the vision encoders want them: upright, square, sized, uint8.

The steps are those of the pre-training: a picture that is not square is padded
with grey to a square, centred, then resized with a bicubic filter that averages
when it shrinks. The result is rounded to whole numbers as an image library does.
A camera that does not exist, or a moment before the episode, is all grey.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Picture = NDArray[np.uint8]
GREY = 127


def grey(size: int) -> Picture:
    """The background picture (size, size, 3)."""
    return np.full((size, size, 3), GREY, np.uint8)


def rotated(picture: Picture, rotation: str) -> Picture:
    """Picture (h, w, 3) as the contract's ``camera_rotation`` wants it: "raw" or "180"."""
    return picture[::-1, ::-1] if rotation == "180" else picture


def fitted(picture: Picture, size: int) -> Picture:
    """Picture (h, w, 3) padded to a square and resized to (size, size, 3)."""
    return fitted_batch(torch.from_numpy(picture.copy())[None], size)[0].numpy()


def fitted_batch(pictures: Tensor, size: int) -> Tensor:
    """Pictures (n, h, w, 3) uint8 padded to squares and resized to (n, size, size, 3) where
    they are."""
    pictures = square(pictures)
    if pictures.shape[1] == size:
        return pictures
    channels_first = pictures.permute(0, 3, 1, 2)
    # Whole numbers are resized on processors only.
    resized = _resized(channels_first.float() if pictures.is_cuda else channels_first, size)
    return resized.permute(0, 2, 3, 1)


def square(pictures: Tensor) -> Tensor:
    """Pictures (n, h, w, 3), each in the middle of a grey square of its longer side."""
    n, height, width = pictures.shape[:3]
    if height == width:
        return pictures
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    out = pictures.new_full((n, side, side, 3), GREY)
    out[:, top : top + height, left : left + width] = pictures
    return out


def _resized(pictures: Tensor, size: int) -> Tensor:
    """(n, 3, S, S) uint8 or float to (n, 3, size, size) uint8.

    Floats in two passes, rounded in between as image libraries do: what overshoots at an
    edge is cut off before it spreads.
    """
    height = pictures.shape[2]
    passes = [(size, size)] if pictures.dtype == torch.uint8 else [(height, size), (size, size)]
    for shape in passes:
        pictures = functional.interpolate(
            pictures, shape, mode="bicubic", antialias=True, align_corners=False
        )
        if pictures.is_floating_point():
            pictures = pictures.round().clamp(0, 255)
    return pictures.to(torch.uint8)
