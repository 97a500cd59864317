"""Byte ranges of large files: announced, read, or copied from a memory map.

Reading a range says at once when the file has become shorter, and waits well for a disk.
A map is twice as cheap for what is in memory, but a file cut under it kills the process
without a word: so whoever copies from one asks :meth:`ByteFile.require_whole` before
each batch. Files are opened for reading only, and by each process that got a copy.
"""

from __future__ import annotations

import mmap
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RdtlError

QUIET_BATCHES = 8
ROWS_AT_ONCE = 512
"""The kernel takes 1,024 buffers in one call."""


class ByteFile:
    """One file, by offset. ``size`` in bytes as found when the object was made.

    Raises RdtlError RDTL-D014 when it is not there, e.g. behind a link that leads nowhere.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.size = path.stat().st_size
        except FileNotFoundError as error:
            raise _missing(path) from error
        self._file: Any = None
        self._map: NDArray[np.uint8] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_map": None}

    @property
    def descriptor(self) -> int:
        """The file's descriptor, opened when it is first asked for."""
        if self._file is None:
            self._file = self.path.open("rb", buffering=0)
        return int(self._file.fileno())

    def read(self, offset: int, length: int, what: str = "") -> bytes:
        """``length`` bytes from ``offset``; RdtlError RDTL-D013 when the file ends before."""
        data = os.pread(self.descriptor, length, offset)
        if len(data) != length:
            raise self.cut(offset, length, len(data), what)
        return data

    def read_into(self, offset: int, out: NDArray[np.uint8], what: str = "") -> None:
        """Fill ``out``, whose rows are C-contiguous, from ``offset``; RDTL-D013 as above."""
        for first in range(0, len(out), ROWS_AT_ONCE):
            rows = out[first : first + ROWS_AT_ONCE]
            found = os.preadv(self.descriptor, list(rows), offset)
            if found != rows.nbytes:
                raise self.cut(offset, rows.nbytes, found, what)
            offset += found

    def announce(self, offset: int, length: int) -> None:
        """Tell the kernel that a range comes soon, so that cold reads of a batch overlap."""
        os.posix_fadvise(self.descriptor, offset, length, os.POSIX_FADV_WILLNEED)

    def sparse(self) -> None:
        """Tell the kernel that reads will be small and far apart: it reads nothing ahead."""
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def mapped(self) -> NDArray[np.uint8]:
        """The whole file, (size,) uint8, read-only."""
        if self._map is None:
            view = mmap.mmap(self.descriptor, self.size, prot=mmap.PROT_READ)
            self._map = np.frombuffer(view, np.uint8)
        return self._map

    def require_whole(self) -> None:
        """Raise RDTL-D013 when the file has become shorter since it was found."""
        now = os.fstat(self.descriptor).st_size
        if now < self.size:
            raise self.cut(0, self.size, now, "it became shorter")

    def cut(self, offset: int, length: int, found: int, what: str = "") -> RdtlError:
        """The error for a range that is not all there."""
        return RdtlError(
            "RDTL-D013",
            "a data file ends too early",
            where=f"{self.path}: {what + ', ' if what else ''}{found} of {length} bytes "
            f"at offset {offset}",
            why="it was cut while it was copied, or after it had been opened; reading on would "
            "train on rubbish",
            fix="copy or collect this file again; it was left as it is",
        )


def _missing(path: Path) -> RdtlError:
    link = f", a link to {path.readlink()}" if path.is_symlink() else ""
    return RdtlError(
        "RDTL-D014",
        "a file of the data set is missing",
        where=f"{path}{link}",
        why="without it fewer episodes would be learned than the data set has",
        fix="copy the data set again, or check that its storage is mounted",
    )


class Disk:
    """Whether this thread's reads of late had to wait for a disk.

    After some batches that read no block and met no missing page it is idle, until one does
    again: announcing and reading cost twice what copying from a map costs when everything
    is in memory. File systems that count no blocks show their absence as missing pages.
    """

    def __init__(self) -> None:
        self._counted = -1
        self._quiet = 0

    @property
    def busy(self) -> bool:
        """True before the first batches, too."""
        return self._quiet < QUIET_BATCHES

    def look(self) -> None:
        """To be called after each batch."""
        usage = resource.getrusage(resource.RUSAGE_THREAD)
        counted = usage.ru_inblock + usage.ru_majflt
        self._quiet = self._quiet + 1 if counted == self._counted else 0
        self._counted = counted
