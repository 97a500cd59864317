"""What a SIF says of itself, read without Apptainer and without mounting it.

Layout of the Singularity Image Format, version 01, little-endian: 32 bytes of launch script, ten
bytes ``SIF_MAGIC\\0``, three of version, three of architecture, 16 of id, then 64-bit numbers:
created, modified, free descriptors, all descriptors, their offset and length. Apptainer keeps the
labels in a JSON object called ``inspect-metadata.json``.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from launcher.core.errors import RdtlError

HEADER = struct.Struct("<32s10s3s3s16s6q")
DESCRIPTOR = struct.Struct("<i?IIIqqqqqqq128s384s")  # type, used, id, group, link, offset, size, …
JSON_TYPE = 0x4006
METADATA = b"inspect-metadata.json"
ARCHITECTURES = {b"01\0": "386", b"02\0": "amd64", b"03\0": "arm", b"04\0": "arm64"}


def architecture(path: Path) -> str:
    """amd64, arm64 …; RdtlError RDTL-C025 when the file is no SIF."""
    return ARCHITECTURES.get(_header(path)[3], "unknown")


def labels(path: Path) -> dict[str, str]:
    """Labels of the image, empty when it has none; RdtlError RDTL-C025 when the file is no SIF."""
    *_, count, offset, _ = _header(path)
    with path.open("rb") as handle:
        handle.seek(offset)
        table = handle.read(count * DESCRIPTOR.size)
        whole = len(table) // DESCRIPTOR.size * DESCRIPTOR.size
        for kind, used, _, _, _, start, size, *_, name, _ in DESCRIPTOR.iter_unpack(table[:whole]):
            if used and kind == JSON_TYPE and name.rstrip(b"\0") == METADATA:
                handle.seek(start)
                return _labels_of(handle.read(size), path)
    return {}


def _labels_of(text: bytes, path: Path) -> dict[str, str]:
    try:
        found = json.loads(text)["data"]["attributes"].get("labels") or {}
    except (ValueError, KeyError) as error:
        raise _damaged(path) from error
    return {str(name): str(value) for name, value in found.items()}


def _header(path: Path) -> tuple[bytes, bytes, bytes, bytes, bytes, int, int, int, int, int, int]:
    with path.open("rb") as handle:
        head = handle.read(HEADER.size)
    if len(head) < HEADER.size or head[32:42] != b"SIF_MAGIC\0":
        raise _damaged(path)
    return HEADER.unpack(head)


def _damaged(path: Path) -> RdtlError:
    return RdtlError(
        "RDTL-C025",
        "the file is no whole SIF image",
        where=str(path),
        why="it was cut short, damaged, or is something else",
        fix="copy or build it again",
    )
