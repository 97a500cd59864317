"""The code that runs: a copy inside the run directory, with a digest.

``RUN/code`` holds launcher, jobs and rdt as they are now, committed or not; every
job and every later attempt uses this copy. For ``rdtl run`` the user's working
tree (tracked and untracked files that git does not ignore) goes to ``RUN/work``.
"""

from __future__ import annotations

import filecmp
import functools
import hashlib
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from launcher.core import files
from launcher.core.errors import UsageError
from launcher.core.runs import RunDir

PACKAGES = ("launcher", "jobs", "rdt")
MAX_WORK_BYTES = 500_000_000


def copy_product(target: Path) -> str:
    """Copy our packages into ``target`` (whole or not at all); returns their digest."""
    source = Path(__file__).parent.parent
    listed = [
        path.relative_to(source)
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    listed.sort()
    _copy(source, listed, target)
    return digest(target, listed)


def copy_work(target: Path, start: Path) -> Path | None:
    """Copy the git working tree around ``start``, once; returns the directory to run in.

    None when ``start`` lies in no git tree: the command then runs where it is.
    Raises UsageError RDTL-U011 for a tree above 500 MB.
    """
    root, present = working_files(start)
    if not present:
        return None
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
    _copy(root, present, target)
    return target / start.resolve().relative_to(root.resolve())


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
    """Top of the git tree around ``start`` and its files: tracked or not, but not ignored.

    Runs are left out, ignored or not: each would bring the copies of all before it.
    Outside git: ``start`` and nothing.
    """
    top = _git(start, "rev-parse", "--show-toplevel")
    if top is None:
        return start, []
    root = Path(top.strip())
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard") or ""
    paths = sorted(Path(name) for name in listed.split("\0") if name)

    @functools.cache
    def in_run(folder: Path) -> bool:
        if folder == folder.parent:
            return False
        run = RunDir(root / folder)
        return (run.plan.exists() and run.lock.exists()) or in_run(folder.parent)

    return root, [p for p in paths if not in_run(p.parent) and (root / p).is_file()]


def digest(root: Path, paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents of ``paths`` (relative to ``root``), in the given order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(str(path).encode() + b"\0")
        total.update(hashlib.sha256((root / path).read_bytes()).digest())
    return total.hexdigest()


def _copy(source: Path, paths: list[Path], target: Path) -> None:
    """Whole or not at all; nothing where a copy is already."""
    if not target.exists():
        with files.whole_folder(target) as temporary:
            for path in paths:
                (temporary / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / path, temporary / path)


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
