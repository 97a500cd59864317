"""Files that are whole or absent.

Everything that another process may read is written to a temporary name in the
same directory, flushed to disk and then renamed or linked. A reader therefore
never meets half a file, whatever was killed and when. ``link`` fails when the
name exists, on NFS and Lustre too, so :func:`publish_once` decides races.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def there(path: Path) -> bool:
    """Whether something is there that we may see; what a closed folder hides is not."""
    try:
        return path.exists()
    except OSError:
        return False


def sha256(path: Path) -> str:
    """Digest of a file's bytes, 64 hex digits; read in blocks, for weights have gigabytes."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _temporary(path: Path) -> Path:
    return path.with_name(
        f".{path.name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}.part"
    )


def sync_directory(path: Path) -> None:
    """Make renames inside ``path`` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(path: Path) -> None:
    """Force everything that was written to the file system of ``path`` to disk, in one call.

    For thousands of small files: an fsync each costs far more than all of them together.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Force a file that a library wrote to disk."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def rename_directory(temporary: Path, final: Path) -> None:
    """Give a finished directory its name; one that has it already is kept and ours dropped.

    For what is the same whoever made it, such as equal steps of one run.
    """
    sync_directory(temporary)
    if final.is_dir():
        shutil.rmtree(temporary)
        return
    temporary.rename(final)
    sync_directory(final.parent)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success it becomes ``path``, on error it is removed.

    Raises OSError from the file system unchanged (a full disk among them).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder; on success it gets the name ``path``, on error it is removed.

    Raises OSError unchanged, also when something is in the way of that name meanwhile.
    """
    temporary = _temporary(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        sync_directory(temporary)
        temporary.rename(path)
        sync_directory(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def discard(path: Path) -> None:
    """Remove a folder, if it is there: whole under its name, or gone from it at once."""
    doomed = _temporary(path)
    with suppress(FileNotFoundError):
        path.rename(doomed)
        shutil.rmtree(doomed)


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` (UTF-8) as a whole."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def dump_json(data: Any) -> str:
    """Canonical JSON: sorted keys, two spaces, one trailing newline."""
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write_json(path: Path, data: Any) -> None:
    """Replace ``path`` by canonical JSON as a whole."""
    write_text(path, dump_json(data))


def publish_once(path: Path, data: Any) -> bool:
    """Create ``path`` with JSON; False, and nothing changed, when it already exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        with temporary.open("w", encoding="utf-8") as handle:
            handle.write(dump_json(data))
            handle.flush()
            os.fsync(handle.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        sync_directory(path.parent)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Parse ``path``; raises FileNotFoundError or json.JSONDecodeError."""
    return json.loads(path.read_text(encoding="utf-8"))


def open_new(path: Path) -> int:
    """Create an append-only file, whose name outlives a power cut; its descriptor.

    Raises FileExistsError: another writer's file may end in a torn line.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o644)
    sync_directory(path.parent)
    return descriptor


def append_line(descriptor: int, line: str) -> None:
    """Append one line in one write and force it to disk (single writer per file)."""
    data = (line + "\n").encode("utf-8")
    written = os.write(descriptor, data)
    if written != len(data):  # a short write leaves a torn line, which readers drop
        raise OSError(28, os.strerror(28), "append")
    os.fsync(descriptor)


def read_whole_lines(path: Path) -> tuple[list[str], bool]:
    """Lines of an append-only file and whether its last line is torn.

    A line counts only with its newline: a torn line can still parse. One that was torn inside a
    letter, before a later writer ended it, is no reason to lose the others.
    """
    *whole, rest = path.read_bytes().split(b"\n")
    return [line.decode("utf-8", "replace") for line in whole if line], bool(rest)
