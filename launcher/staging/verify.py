"""Proof that bytes are what the store has: its checksums against what lies on this disk.

One reading gives both the digest for the manifest and the store's own checksum. Where a
store has no checksum (http), the length and what the store called its version count, and
the manifest that is written here is what later verification holds on to.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from ctypes import c_int64
from pathlib import Path
from typing import Any

from launcher.core.manifest import File, Manifest
from launcher.staging.store import HASHES, StoreEntry

CHUNK = 1024 * 1024
THREADS = 4
LARGE = 4 * CHUNK
"""Bytes from which a file is read while it is still being written."""
PARTED = 256 * CHUNK
"""Bytes from which several parts of a file arrive at once; what is smaller grows at its end."""
SMALL = CHUNK // 4
"""Bytes up to which a file is proven where it is said to have arrived: handing it to a thread
costs more than twice as much as reading it, and all threads together hold one interpreter."""
WRITE = 2  # SYNC_FILE_RANGE_WRITE: starts it, waits for nothing
LIBC = ctypes.CDLL(None)


class _Crc32c:
    def __init__(self, size: int) -> None:
        import google_crc32c

        self._sum: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]

    def update(self, block: Any) -> None:
        self._sum.update(bytes(block))

    def hexdigest(self) -> str:
        return str(self._sum.digest().hex())


def _git_sha1(size: int) -> Any:
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


HASHERS: dict[str, Callable[[int], Any]] = {
    "sha256": lambda size: hashlib.sha256(),
    "sha1": lambda size: hashlib.sha1(usedforsecurity=False),
    "md5": lambda size: hashlib.md5(usedforsecurity=False),
    "crc32c": _Crc32c,
    "git-sha1": _git_sha1,
}


class Reading:
    """Checksums of a file in one reading, which may begin while the file is still written."""

    def __init__(self, path: str, size: int, kinds: set[str]) -> None:
        self.length = 0
        """Bytes read so far."""
        self._file = open(path, "rb", buffering=0)  # noqa: PTH123, SIM115 - a Path per file costs
        self._buffer = memoryview(bytearray(min(CHUNK, size + 1)))
        self._hashers = {kind: HASHERS[kind](size) for kind in kinds}
        self._lock = threading.Lock()

    def advance(self) -> None:
        """Read what is there by now."""
        with self._lock:
            while count := self._file.readinto(self._buffer):
                self.length += count
                for hasher in self._hashers.values():
                    hasher.update(self._buffer[:count])

    def digests(self) -> dict[str, str]:
        """Of what has been read, by kind."""
        return {kind: hasher.hexdigest() for kind, hasher in self._hashers.items()}

    def is_of(self, path: str) -> bool:
        """Whether this very file still has that name: one that is written anew is another."""
        here = os.fstat(self._file.fileno())
        there = os.stat(path)  # noqa: PTH116
        return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

    def keep(self) -> None:
        """It is right: nobody is to write it any more, and it may go to the disk."""
        file = self._file.fileno()
        os.fchmod(file, 0o444)  # many runs will read this one file
        if self.length >= LARGE:  # the one flush at the end then waits less
            LIBC.sync_file_range(file, c_int64(0), c_int64(0), WRITE)


def hashes(path: Path, kinds: set[str]) -> tuple[int, dict[str, str]]:
    """Length and checksums of a file, in one reading."""
    reading = Reading(str(path), path.stat().st_size, kinds)
    reading.advance()
    return reading.length, reading.digests()


def strongest(entry: StoreEntry) -> str | None:
    """The kind of checksum to hold a file to."""
    return next((kind for kind in HASHES if kind in entry.checksums), None)


def begin(folder: Path, entry: StoreEntry) -> Reading:
    """A reading of a file that is there, or of what is there of it by now."""
    kind = strongest(entry)
    return Reading(f"{folder}/{entry.path}", entry.size, {"sha256", kind or "sha256"})


def prove(folder: Path, entry: StoreEntry, begun: Reading | None = None) -> File | None:
    """The manifest's line for a file that is what the store has, else None.

    ``begun`` may have read a part of it while it arrived.
    """
    try:
        if begun and begun.is_of(f"{folder}/{entry.path}") and (found := _compare(begun, entry)):
            return found
        return _compare(begin(folder, entry), entry)
    except FileNotFoundError:
        return None


def _compare(reading: Reading, entry: StoreEntry) -> File | None:
    reading.advance()
    kind, found = strongest(entry), reading.digests()
    if reading.length != entry.size or (kind and found[kind] != entry.checksums[kind].lower()):
        return None
    reading.keep()
    return File(entry.path, reading.length, found["sha256"])


class Prover:
    """Proves files of one folder in the background while others are still arriving."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.proven: dict[str, File] = {}
        self._right: list[File] = []
        self._pool = ThreadPoolExecutor(THREADS)
        self._open: deque[tuple[str, Future[File | None]]] = deque()
        self._begun: dict[str, tuple[Reading, Future[None]]] = {}

    def follow(self, entry: StoreEntry) -> None:
        """Read what is there by now of a file that is just arriving under its own name."""
        if not LARGE <= entry.size < PARTED:
            return
        reading, last = self._begun.get(entry.path, (None, None))
        if last and not last.done():
            return
        with suppress(FileNotFoundError):  # it has not been opened yet
            reading = reading or begin(self.folder, entry)
            self._begun[entry.path] = reading, self._pool.submit(reading.advance)

    def start(self, entry: StoreEntry) -> None:
        """Prove ``entry`` now when it is small, else soon."""
        if entry.size <= SMALL:
            self._settle(entry.path, prove(self.folder, entry))
        else:
            begun, _ = self._begun.pop(entry.path, (None, None))
            self._open.append((entry.path, self._pool.submit(prove, self.folder, entry, begun)))

    def collect(self, *, wait: bool) -> list[File]:
        """What has been found right since the last call; what is wrong is removed.

        With ``wait`` until all is proven, else only what is ready.
        """
        while self._open and (wait or self._open[0][1].done()):
            path, future = self._open.popleft()
            self._settle(path, future.result())
        right, self._right = self._right, []
        return right

    def _settle(self, path: str, file: File | None) -> None:
        if file is None:
            (self.folder / path).unlink(missing_ok=True)
        else:
            self.proven[path] = file
            self._right.append(file)

    def forget(self, path: str) -> None:
        """What was proven is not wanted any more."""
        self.proven.pop(path, None)
        (self.folder / path).unlink(missing_ok=True)

    def manifest(self) -> Manifest:
        """All that is proven."""
        return Manifest.of(self.proven.values())
