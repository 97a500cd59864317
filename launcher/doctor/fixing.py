"""What ``rdtl doctor --fix`` mends: only what cannot hurt anybody, and it says what it did.

A second time there is nothing left to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from launcher import sites
from launcher.core import extension_locks
from launcher.doctor.secrets import others_read, own_files
from launcher.doctor.subject import Subject


@dataclass(frozen=True)
class Repair:
    """One thing that was not well: what it was and what it is now."""

    code: str
    where: str
    before: str
    after: str


def repair(subject: Subject) -> list[Repair]:
    """Mend what is safe to mend; what could not be mended says why."""
    return [*_locks(), *_modes(), *_folders(subject)]


def _locks() -> Iterator[Repair]:
    for path in extension_locks.stale(extension_locks.folder()):
        before = "a lock whose builder is dead"
        yield _done("RDTL-T026", path, before, "removed", _unlink)


def _modes() -> Iterator[Repair]:
    for path in own_files():
        if others_read(path):
            before = f"mode {path.stat().st_mode & 0o777:o}"
            yield _done("RDTL-W002", path, before, "mode 600", _close)


def _folders(subject: Subject) -> Iterator[Repair]:
    for path in (subject.runs_dir, sites.assets_root(subject.site)):
        if not path.exists():
            yield _done("RDTL-G005", path, "missing", "made", _make)


def _done(code: str, path: Path, before: str, after: str, act: Callable[[Path], None]) -> Repair:
    try:
        act(path)
    except OSError as error:
        after = f"as it was: {error.strerror}"
    return Repair(code, str(path), before, after)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _close(path: Path) -> None:
    path.chmod(0o600)


def _make(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
