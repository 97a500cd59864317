"""TFRecord files and the `tf.train.Example` messages in them, without TensorFlow or protobuf.

A record is: length (8 bytes, little-endian), masked CRC32C of those 8 bytes, data, masked
CRC32C of the data. An Example maps names to lists of bytes, floats or integers in
protobuf's wire format. Only headers are read: pictures are stepped over by their length,
so that a shard of 90 MB costs some thousand small reads. Whatever does not add up is an
error with file and offset: RDTL-D013 (torn), RDTL-D030 (damaged).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from os import pread
from typing import NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RdtlError
from rdt.data.ranges import ByteFile

LENGTH, FOOT = 12, 4
VARINT_BYTES = 10
WIRE_VARINT, WIRE_EIGHT, WIRE_SIZED, WIRE_FOUR = 0, 1, 2, 5
BYTES_LIST, FLOAT_LIST = 1, 2
SMALL, WINDOW = 1 << 9, 1 << 14


class Extent(NamedTuple):
    """Bytes ``start`` … ``end`` of a file."""

    start: int
    end: int


def masked_crc(data: bytes) -> int:
    """CRC32C, rotated and shifted as TFRecord stores it."""
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(file: ByteFile, *, verify: bool = False) -> Iterator[Extent]:
    """Where each record's data lie. The lengths' checksums are always compared, the data's,
    which costs reading everything, with ``verify``."""
    at = 0
    while at < file.size:
        head = file.read(at, min(LENGTH, file.size - at), "a record's head")
        if len(head) < LENGTH:
            raise file.cut(at, LENGTH, len(head), "a record's head")
        length, crc = struct.unpack("<QI", head)
        if masked_crc(head[:8]) != crc:
            raise damaged(file, at, "the checksum of a record's length is wrong")
        data = Extent(at + LENGTH, at + LENGTH + length)
        if data.end + FOOT > file.size:
            raise file.cut(at, LENGTH + length + FOOT, file.size - at, "a record")
        if verify:
            (crc,) = struct.unpack("<I", file.read(data.end, FOOT))
            if masked_crc(file.read(data.start, length)) != crc:
                raise damaged(file, at, "the checksum of a record's data is wrong")
        yield data
        at = data.end + FOOT


def damaged(file: ByteFile, offset: int, what: str) -> RdtlError:
    """The error for bytes that are no Example."""
    return RdtlError(
        "RDTL-D030",
        f"a TFRecord file is damaged: {what}",
        where=f"{file.path}: offset {offset}",
        why="reading on would train on rubbish",
        fix="copy this shard again from its source; it was left as it is",
    )


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned number of at most ten bytes, and where it ends; ValueError otherwise."""
    value = 0
    for place, byte in enumerate(data[at : at + VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number does not end")


def fields(file: ByteFile, message: Extent) -> Iterator[tuple[int, int, Extent]]:
    """(field number, wire type, value) of each field of a message; values are not read."""
    at = message.start
    while at < message.end:
        head = pread(file.descriptor, 2 * VARINT_BYTES, at)
        try:
            key, start = _varint(head, 0)
            wire = key & 7
            if wire == WIRE_SIZED:
                size, start = _varint(head, start)
            elif wire == WIRE_VARINT:
                size = _varint(head, start)[1] - start
            elif wire in (WIRE_EIGHT, WIRE_FOUR):
                size = 8 if wire == WIRE_EIGHT else 4
            else:
                raise ValueError(f"wire type {wire}")
        except ValueError as error:
            raise damaged(file, at, str(error)) from error
        value = Extent(at + start, at + start + size)
        if value.end > message.end:
            raise damaged(file, at, "a field runs past its message")
        yield key >> 3, wire, value
        at = value.end


def _parts(file: ByteFile, message: Extent, *numbers: int) -> list[Extent]:
    """The values of the fields ``numbers``, each there once; they may come in any order."""
    found = [(number, value) for number, wire, value in fields(file, message) if wire == WIRE_SIZED]
    if sorted(number for number, _ in found if number in numbers) != sorted(numbers):
        raise damaged(file, message.start, f"fields {numbers} are missing or doubled")
    values = dict(found)
    return [values[number] for number in numbers]


def features(file: ByteFile, example: Extent) -> dict[str, Extent]:
    """The features of an Example by name; their values are not read."""
    found: dict[str, Extent] = {}
    for number, wire, entry in fields(file, *_parts(file, example, 1)):
        if (number, wire) != (1, WIRE_SIZED):
            raise damaged(file, entry.start, f"a map of features with field {number}")
        name, value = _parts(file, entry, 1, 2)
        try:
            key = file.read(name.start, name.end - name.start).decode()
        except UnicodeDecodeError as error:
            raise damaged(file, name.start, "a feature's name is no text") from error
        if key in found:
            raise damaged(file, entry.start, f"the feature {key} stands there twice")
        found[key] = value
    return found


def floats(file: ByteFile, feature: Extent) -> NDArray[np.float32]:
    """The values of a list of floats, (n,) float32, copied; packed runs and single values."""
    parts = []
    for number, wire, value in fields(file, *_parts(file, feature, FLOAT_LIST)):
        size = value.end - value.start
        if number != 1 or wire not in (WIRE_SIZED, WIRE_FOUR) or size % 4:
            raise damaged(file, value.start, "a list of floats holds something else")
        parts.append(file.read(value.start, size))
    return np.frombuffer(b"".join(parts), "<f4").astype(np.float32)


def blobs(
    file: ByteFile, feature: Extent, most: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets and sizes (n,) int64 of the values of a list of bytes; the values are not read.

    ``most``: how many are wanted at most, from the first on.

    The one loop that runs for each picture of a data set: among small values it reads a
    window of headers at once, among pictures one header each.
    """
    ((at, end),) = _parts(file, feature, BYTES_LIST)
    offsets, sizes = [], []
    descriptor = file.descriptor
    window, base, size = b"", at, SMALL
    while at < end and len(sizes) != most:
        here = at - base
        if here + 1 + VARINT_BYTES > len(window):
            reach = WINDOW if size < SMALL else 1 + VARINT_BYTES
            window, base, here = pread(descriptor, reach, at), at, 0
        start = here + 1
        size = shift = 0
        for byte in window[start : start + VARINT_BYTES]:
            size |= (byte & 0x7F) << shift
            shift += 7
            start += 1
            if byte < 0x80:
                break
        else:
            raise damaged(file, at, "a number does not end")
        if window[here] != 1 << 3 | WIRE_SIZED:
            raise damaged(file, at, "a list of bytes holds something else")
        at = base + start + size
        if at > end:
            raise damaged(file, base + start, "a value runs past its list")
        offsets.append(base + start)
        sizes.append(size)
    return np.array(offsets, np.int64), np.array(sizes, np.int64)
