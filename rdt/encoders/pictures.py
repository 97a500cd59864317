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
from torch.nn import functional

Picture = NDArray[np.uint8]
GREY = 127


def grey(size: int) -> Picture:
    """The background picture (size, size, 3)."""
    return np.full((size, size, 3), GREY, np.uint8)


def rotated(picture: Picture, rotation: str) -> Picture:
    """Picture (h, w, 3) as the contract's ``camera_rotation`` wants it: "raw" or "180"."""
    return picture[::-1, ::-1] if rotation == "180" else picture


def square(picture: Picture) -> Picture:
    """Picture (h, w, 3) in the middle of a grey square of its longer side."""
    height, width = picture.shape[:2]
    side = max(height, width)
    if height == width:
        return picture
    top, left = (side - height) // 2, (side - width) // 2
    out = grey(side)
    out[top : top + height, left : left + width] = picture
    return out


def fitted(picture: Picture, size: int) -> Picture:
    """Picture (h, w, 3) padded to a square and resized to (size, size, 3)."""
    picture = square(picture)
    if picture.shape[0] == size:
        return picture
    channels_first = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None]
    resized = functional.interpolate(
        channels_first, (size, size), mode="bicubic", antialias=True, align_corners=False
    )
    return resized[0].permute(1, 2, 0).numpy()
