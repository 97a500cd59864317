"""Messages as openpi writes them: msgpack, arrays as maps of their bytes."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

ARRAY, SCALAR = b"__ndarray__", b"__npgeneric__"
REFUSED = "VOc"
"""Kinds of numbers that the protocol has not: records, Python objects, complex ones."""


def pack(message: Any) -> bytes:
    """``message`` of maps, lists, texts, numbers and NumPy arrays as bytes.

    Raises TypeError for anything else.
    """
    data: bytes = msgpack.packb(message, default=_encode)
    return data


def unpack(data: bytes) -> Any:
    """Inverse of :func:`pack`; arrays are copies that may be written to.

    Raises ValueError for bytes that are no such message.
    """
    try:
        return msgpack.unpackb(data, object_hook=_decode)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise ValueError(f"no message of openpi's: {type(error).__name__}: {error}") from error


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in REFUSED:
        kind = {b"dtype": value.dtype.str}
        if isinstance(value, np.generic):
            return {SCALAR: True, b"data": value.item(), **kind}
        return {ARRAY: True, b"data": value.tobytes(), **kind, b"shape": value.shape}
    raise TypeError(f"a {type(value).__name__} cannot be sent")


def _decode(value: dict[Any, Any]) -> Any:
    if ARRAY in value:
        dtype = np.dtype(value[b"dtype"])
        return np.frombuffer(value[b"data"], dtype).reshape(value[b"shape"]).copy()
    return np.dtype(value[b"dtype"]).type(value[b"data"]) if SCALAR in value else value
