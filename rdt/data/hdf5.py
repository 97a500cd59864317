"""Opening HDF5 files of unknown health, and reading rows past the HDF5 library.

A contiguous dataset is one run of bytes in its file, so rows are read with
``pread`` at a known offset, some thirty times faster than through a file
that is opened for each sample. Everything else goes through h5py.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from launcher.core.errors import RdtlError
from rdt.data.finding import may_not_be_read

_ENDLESS = 1 << 50
HEAD_BYTES = 1 << 16
Extent = tuple[int, int, str]


def open_file(path: Path) -> h5py.File:
    """Open for reading.

    Raises RdtlError RDTL-D014 when there is no such file or it may not be read, RDTL-D013
    when it is cut short (naming the first dataset that is cut) or no HDF5 file at all.
    """
    if not path.is_file():
        raise RdtlError(
            "RDTL-D014",
            "there is no demonstration file",
            where=str(path),
            why="training and replay read their demonstrations from it",
            fix="check the path and that its storage is mounted",
        )
    try:
        _require_finite_heaps(path)
        return h5py.File(path, "r")
    except PermissionError as error:
        raise may_not_be_read(path, error) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise RdtlError(
            "RDTL-D013",
            "a demonstration file is not whole",
            where=f"{path}: {_damage(path)}",
            why=f"the HDF5 library refuses it ({str(error).strip()[:160]}); reading on would "
            "train on rubbish",
            fix="copy or collect this file again; it was left as it is",
        ) from error


def _require_finite_heaps(path: Path) -> None:
    """Raise ValueError for a heap of texts on which the HDF5 library would turn for ever.

    It steps over free space by its length and does not ask whether that is 0. The heap with
    the attributes of /data lies among the first bytes of a file; others are never asked for.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    for heap in re.finditer(b"GCOL", head):
        (size,) = struct.unpack_from("<Q", head.ljust(HEAD_BYTES + 16, b"\0"), heap.start() + 8)
        at, end = heap.start() + 16, min(heap.start() + size, len(head))
        while at + 16 <= end:
            index, _, _, length = struct.unpack_from("<HHIQ", head, at)
            step = 16 + -(-length // 8) * 8 if index else length
            if step == 0:
                raise ValueError(f"the heap at offset {heap.start()} has free space of length 0")
            at += step


class _Padded(io.RawIOBase):
    """A file that seems to go on with zeros for ever, so that a cut one can be opened."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: _ENDLESS}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._position)
        found = self._file.readinto(buffer)
        view = memoryview(buffer)
        view[found:] = bytes(len(view) - found)
        self._position += len(view)
        return len(view)

    def close(self) -> None:
        self._file.close()
        super().close()


def _damage(path: Path) -> str:
    """Where a file that h5py refuses is broken, in words."""
    size = path.stat().st_size
    extents: list[Extent] = []
    try:
        with _Padded(path) as padded, h5py.File(padded, "r") as file:
            unreadable = _walk(file, extents)
    except (OSError, RuntimeError, ValueError, OverflowError):
        return f"{size} bytes; this is no HDF5 file, or not even its first bytes are there"
    cut = sorted(extent for extent in extents if extent[0] + extent[1] > size)
    if not cut:
        return f"{size} bytes; the index of {(unreadable or ['the file'])[0]} is cut"
    start, length, name = cut[0]
    kept = max(0, size - start)
    return f"{size} bytes; first dataset that is cut: {name} ({kept} of {length} bytes)"


def _walk(group: h5py.Group, extents: list[Extent]) -> list[str]:
    """Collect the extents below ``group``; returns the names whose headers lie behind the cut."""
    try:
        names = list(group)
    except (RuntimeError, ValueError, OverflowError):
        return [group.name]
    unreadable = []
    for name in names:
        try:
            item = group[name]
            if isinstance(item, h5py.Group):
                unreadable += _walk(item, extents)
            else:
                extents += _extents(item)
        except (KeyError, OSError, RuntimeError, ValueError, OverflowError):
            unreadable.append(f"{group.name.rstrip('/')}/{name}")
    return unreadable


def _extents(dataset: h5py.Dataset) -> list[Extent]:
    """(offset, bytes, name) of every stored piece of a dataset."""
    if dataset.chunks is not None:
        infos = [dataset.id.get_chunk_info(i) for i in range(dataset.id.get_num_chunks())]
        return [(info.byte_offset, info.size, dataset.name) for info in infos]
    offset = raw_offset(dataset)
    return [] if offset is None else [(offset, dataset.nbytes, dataset.name)]


def raw_offset(dataset: h5py.Dataset) -> int | None:
    """Byte offset of a contiguous dataset in its file, else None.

    A dataset that was created and never written reports an offset inside the user
    block; its storage size of 0 gives it away.
    """
    if dataset.chunks is not None or dataset.is_virtual or dataset.external:
        return None
    offset = dataset.id.get_offset()
    if offset is None or dataset.id.get_storage_size() != dataset.nbytes:
        return None
    return int(offset)


@contextmanager
def coded(path: Path) -> Iterator[None]:
    """Turn whatever the HDF5 library throws at a damaged file into RdtlError RDTL-D013."""
    try:
        yield
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError) as error:
        raise RdtlError(
            "RDTL-D013",
            "a demonstration file is damaged",
            where=f"{path}: {type(error).__name__}: {str(error).strip()[:160]}",
            why="the HDF5 library cannot read what its index promises",
            fix="copy or collect this file again; it was left as it is",
        ) from error


def values(dataset: h5py.Dataset, path: Path) -> NDArray[Any]:
    """A whole array of floats in its own type, at most what the file can hold.

    A damaged header may promise terabytes: compression shrinks a thousandfold at most.
    """
    if dataset.nbytes > 1100 * path.stat().st_size or dataset.dtype.kind != "f":
        raise ValueError(f"{dataset.name} promises {dataset.dtype} {dataset.shape}")
    array: NDArray[Any] = dataset[:]
    return array
