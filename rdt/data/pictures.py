"""Encoded pictures (JPEG, PNG) to RGB, straight into the place where a batch wants them."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from launcher.core.errors import RdtlError

JPEG, PNG = b"\xff\xd8", b"\x89PNG"
HEADER_BYTES = 1 << 16


def size(data: bytes, where: str) -> tuple[int, int]:
    """Height and width, from the first bytes of a picture (a JPEG's or a PNG's header)."""
    try:
        if data.startswith(JPEG):
            height, width = simplejpeg.decode_jpeg_header(data, strict=False)[:2]
            return int(height), int(width)
        if data.startswith(PNG):
            return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    except (ValueError, LookupError) as error:  # simplejpeg looks unknown colours up in a table
        raise undecodable(where, str(error)) from error
    raise undecodable(where, f"it starts with {data[:4]!r}")


def decode(data: bytes, out: NDArray[np.uint8], where: str) -> None:
    """Decode into ``out`` (S, S, 3) uint8, C-contiguous; RdtlError RDTL-D032 when that fails.

    A picture of another size is refused too: it would be cut or squeezed without a word.
    """
    found = size(data, where)
    if found != out.shape[:2]:
        raise undecodable(where, f"it has {found} pixels, the first ones have {out.shape[:2]}")
    try:
        if data.startswith(JPEG):
            simplejpeg.decode_jpeg(data, "RGB", buffer=out)
        else:
            with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
                out[:] = np.asarray(picture.convert("RGB"))
    except (ValueError, LookupError, OSError, SyntaxError) as error:
        raise undecodable(where, str(error)) from error


def undecodable(where: str, why: str) -> RdtlError:
    """The error for a picture that cannot be shown."""
    return RdtlError(
        "RDTL-D032",
        "a picture cannot be decoded",
        where=where,
        why=why,
        fix="copy this file again from its source; it was left as it is",
    )
