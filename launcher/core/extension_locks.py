"""Locks that torch's builder of native extensions leaves.

A process that is killed in a build leaves an empty ``lock``, for which every later one waits
silently and for ever (RDTL-T026). A living builder holds its lock open: that one must stay.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

VARIABLE = "TORCH_EXTENSIONS_DIR"
LONGEST_S = 3600.0
"""No extension takes longer to build."""
LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "overlay"}
"""File systems of this machine alone: a builder of another one cannot hold a lock there."""
MOUNTS = Path("/proc/self/mounts")


def folder() -> Path:
    """Where torch builds for whoever does not name another place."""
    return Path(os.environ.get(VARIABLE) or "~/.cache/torch_extensions").expanduser()


def stale(root: Path) -> list[Path]:
    """The locks below ``root`` whose builder is surely dead."""
    return [path for path in unheld(root) if is_dead(path)]


def unheld(root: Path) -> list[Path]:
    """The locks below ``root`` that no process which this user sees on this machine holds."""
    found = [path for path in sorted(root.glob("**/lock")) if path.is_file()]
    held = _open_files() if found else set()
    return [path for path in found if str(path.resolve()) not in held]


def is_dead(path: Path) -> bool:
    """Whether nobody elsewhere can hold a lock that nobody holds here.

    Elsewhere is another node of a cluster, or another user, whose open files nobody sees.
    """
    try:
        status = path.stat()
    except OSError:  # its builder ended well meanwhile
        return False
    mine = os.geteuid() in (0, status.st_uid)
    return (mine and _is_local(path)) or time.time() - status.st_mtime > LONGEST_S


def _is_local(path: Path) -> bool:
    folder, found = Path("/"), ""
    if not MOUNTS.is_file():  # no Linux
        return False
    for line in MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines():
        _, mounted, kind, *_ = line.split(" ")
        place = Path(mounted.replace("\\040", " "))
        if path.resolve().is_relative_to(place) and place.is_relative_to(folder):
            folder, found = place, kind  # a later mount covers an earlier one
    return found in LOCAL


def _open_files() -> set[str]:
    """What the processes of this machine have open, as far as this user may see."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):  # its process ended meanwhile, or is another user's
            for link in folder.iterdir():
                with suppress(OSError):  # closed meanwhile
                    found.add(str(link.readlink()))
    return found
