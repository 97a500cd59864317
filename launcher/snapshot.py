"""The code that runs: a copy inside the run directory, with a digest.

``RUN/code`` holds launcher, jobs and rdt as they are now, committed or not; every
job and every later attempt uses this copy. For ``rdtl run`` the user's working
tree (tracked and untracked files that git does not ignore) goes to ``RUN/work``.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from launcher.core import files
from launcher.core.errors import UsageError

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
    return _copy(source, sorted(listed), target)


def copy_work(target: Path, start: Path) -> tuple[Path, str] | None:
    """Copy the git working tree around ``start``; returns (directory to run in, digest).

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
    digest = _copy(root, present, target)
    return target / start.resolve().relative_to(root.resolve()), digest


def working_files(start: Path) -> tuple[Path, list[Path]]:
    """Top of the git tree around ``start`` and its files: tracked or not, but not ignored.

    Outside git: ``start`` and nothing.
    """
    top = _git(start, "rev-parse", "--show-toplevel")
    if top is None:
        return start, []
    root = Path(top.strip())
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard") or ""
    paths = sorted(Path(name) for name in listed.split("\0") if name)
    return root, [path for path in paths if (root / path).is_file()]


def digest(root: Path, paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents of ``paths`` (relative to ``root``), in the given order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(str(path).encode() + b"\0")
        total.update(hashlib.sha256((root / path).read_bytes()).digest())
    return total.hexdigest()


def _copy(source: Path, paths: list[Path], target: Path) -> str:
    if not target.exists():
        with files.whole_folder(target) as temporary:
            for path in paths:
                (temporary / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / path, temporary / path)
    return digest(target, paths)


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
