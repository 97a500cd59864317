"""Messages as openpi writes them: msgpack, arrays as maps of their bytes."""

from __future__ import annotations

import re
from typing import Any

import msgpack
import numpy as np

ARRAY, SCALAR = b"__ndarray__", b"__npgeneric__"
REFUSED = "VOc"
"""Kinds of numbers that the protocol has not: records, Python objects, complex ones."""
KIND = re.compile(r"[<>|=]?[biufSUmM]\d{0,9}(\[\w{1,9}\])?")
"""A type as NumPy writes it. It reads more: shapes, which it hands to Python's own parser."""


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
    except (ValueError, TypeError, KeyError, OverflowError, msgpack.UnpackException) as error:
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
        return np.frombuffer(value[b"data"], _kind(value)).reshape(value[b"shape"]).copy()
    if SCALAR not in value:
        return value
    kind, data = _kind(value), value[b"data"]
    # NumPy takes a number for the length of a text: 40 bytes could ask for gigabytes.
    if isinstance(data, str | bytes) != (kind.kind in "US"):
        raise TypeError(f"a {type(data).__name__} is no {kind}")
    return kind.type(data)


def _kind(value: dict[Any, Any]) -> np.dtype[Any]:
    """The declared type of numbers; TypeError for those that nobody may send."""
    name = value[b"dtype"]
    if not isinstance(name, str) or not KIND.fullmatch(name):
        raise TypeError(f"{str(name)[:40]} is no type of the protocol")
    return np.dtype(name)
