"""The code that runs: a copy inside the run directory, with a digest.

``RUN/code`` holds launcher, jobs and rdt as they are now, committed or not; every
job and every later attempt uses this copy. For ``rdtl run`` the user's working
tree (tracked and untracked files that git does not ignore) goes to ``RUN/work``.
"""

from __future__ import annotations

import contextlib
import filecmp
import functools
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from launcher.core import files
from launcher.core.errors import UsageError
from launcher.core.runs import RunDir

PACKAGES = ("launcher", "jobs", "rdt")
MAX_WORK_BYTES = 500_000_000
SENT = ".rdtl-tree"
"""In a tree that was sent to a login node: the names of its files, a NUL after each. It is no git
tree there, and what else lies in it is of runs that were made where it lies."""


def copy_product(target: Path, gives_way: Callable[[], bool] = lambda: True) -> None:
    """Copy our packages into ``target``, whole or not at all.

    ``gives_way`` is asked at the last moment whether what is there is replaced; it stays if not.
    """
    source = Path(__file__).parent.parent
    listed = [
        path.relative_to(source)
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    listed.sort()
    _copy(source, listed, target, gives_way)


def code_digest(code: Path) -> str:
    """SHA-256 of such a copy as it is now."""
    paths = (path for path in code.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return digest(code, sorted(path.relative_to(code) for path in paths))


def copy_work(target: Path, start: Path, gives_way: Callable[[], bool] = lambda: True) -> None:
    """Copy the working tree around ``start``; outside of one there is nothing to copy.

    ``gives_way`` as for :func:`copy_product`. Raises UsageError RDTL-U011 for a tree above 500 MB.
    """
    root, present = working_files(start)
    if not present:
        return
    size = sum((root / path).stat().st_size for path in present)
    if size > MAX_WORK_BYTES:
        biggest = max(present, key=lambda path: (root / path).stat().st_size)
        raise UsageError(
            "RDTL-U011",
            f"the working tree to copy has {size // 10**6} MB (limit {MAX_WORK_BYTES // 10**6})",
            where=f"{root}, largest file {biggest}",
            why="every run keeps the code that it ran",
            fix="list data and checkpoints in .gitignore; they are no code",
        )
    _copy(root, present, target, gives_way)


def work_directory(target: Path, start: Path) -> Path:
    """Where in the copy ``target`` a command of ``start`` runs; ``start`` itself in no tree."""
    root, present = working_files(start)
    return target / start.resolve().relative_to(root.resolve()) if present else start


def newer_work(copied: Path, start: Path) -> list[str]:
    """Files of the git tree around ``start`` that the copy has otherwise, or lacks.

    A copy keeps sizes and times, so these are looked at first. What only the copy has was
    removed since, or its command made it: that is not told.
    """
    root, present = working_files(start)
    return [str(path) for path in present if not _alike(root / path, copied / path)]


def _alike(one: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(one, other)


def working_files(start: Path) -> tuple[Path, list[Path]]:
    """Top of the tree around ``start`` and its files: those that were sent here, else those of
    git, tracked or not, but not ignored.

    Runs are left out, ignored or not: each would bring the copies of all before it.
    In no tree: ``start`` and nothing.
    """
    found = _sent(start.resolve()) or _of_git(start)
    if found is None:
        return start, []
    root, listed = found
    paths = sorted(Path(name) for name in listed.split("\0") if name)

    @functools.cache
    def in_run(folder: Path) -> bool:
        if folder == folder.parent:
            return False
        run = RunDir(root / folder)
        made = run.plan.exists() and run.lock.exists()
        return made or run.creating.exists() or in_run(folder.parent)

    return root, [p for p in paths if not in_run(p.parent) and (root / p).is_file()]


def _sent(start: Path) -> tuple[Path, str] | None:
    for root in (start, *start.parents):
        if (root / SENT).is_file():
            return root, (root / SENT).read_text(encoding="utf-8")
    return None


def _of_git(start: Path) -> tuple[Path, str] | None:
    top = _git(start, "rev-parse", "--show-toplevel")
    if top is None:
        return None
    root = Path(top.strip())
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return root, listed or ""


def digest(root: Path, paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents of ``paths`` (relative to ``root``), in the given order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(str(path).encode() + b"\0")
        total.update(hashlib.sha256((root / path).read_bytes()).digest())
    return total.hexdigest()


def _copy(source: Path, paths: list[Path], target: Path, gives_way: Callable[[], bool]) -> None:
    with contextlib.suppress(FileExistsError), files.whole_folder(target) as temporary:
        for path in paths:
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / path, temporary / path)
        replace(target, gives_way)


def replace(target: Path, gives_way: Callable[[], bool]) -> None:
    """Make room for another copy; FileExistsError when there is one that does not give way."""
    if gives_way():
        files.discard(target)
    elif target.exists():
        raise FileExistsError(target)


def git_state(root: Path) -> dict[str, str | bool] | None:
    """Commit and whether the tree is dirty, or None where ``root`` is no clone of its own.

    Our packages may be installed below somebody's repository, whose commit says nothing of them.
    """
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit.strip(), "dirty": bool(_git(root, "status", "--porcelain"))}


def _git(start: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(start), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
