"""A place that is the folder itself proves nothing: what is deleted here would be gone there.

On disks that this machine sees it is told beforehand. Elsewhere nothing says whose disk a place
is (``ssh://`` to this very host, a server of this folder), until the manifest appears here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from launcher.core.errors import RefusedError
from launcher.staging import published
from launcher.staging.uri import Uri


def require_other(folder: Path, uri: Uri, paths: Iterable[str]) -> None:
    """RefusedError RDTL-G046 when ``paths`` of ``folder`` would come to lie in ``folder`` itself.

    Links and mounts are followed, of the place and of what lies in it. Only ``file://`` is looked
    at; what else may turn out to be the folder is known by :func:`trace`.
    """
    if uri.scheme != "file":
        return
    top, seen = Path(uri.path), set()
    here = folder.stat()
    for place in (top, *(top / path for path in paths)):
        if place.parent in seen and not place.is_symlink():
            continue
        seen.add(place.parent)
        real = Path(os.path.realpath(place))  # of a loop, too, which the store then refuses
        if any(_is(above, here) for way in (place, real) for above in (way, *way.parents)):
            raise refusal(folder, uri)


def _is(place: Path, here: os.stat_result) -> bool:
    try:
        return os.path.samestat(place.stat(), here)
    except OSError:  # not there yet, or not to be seen: then it cannot be written either
        return False


def trace(folder: Path) -> tuple[int, int] | None:
    """Changes when a manifest is published into ``folder``; None when it holds none."""
    try:
        facts = (folder / published.NAME).stat()
    except FileNotFoundError:
        return None
    return facts.st_ino, facts.st_ctime_ns


def refusal(folder: Path, uri: Uri) -> RefusedError:
    """RDTL-G046: what was to be a copy is the only one."""
    return RefusedError(
        "RDTL-G046",
        "a folder cannot be uploaded into itself",
        where=f"{uri} is {folder}, lies in it or leads back to it",
        why="every file would be proven by itself, and what is deleted here would be gone there, "
        "too; nothing was deleted",
        fix="name a place that is not the folder's own; links and mounts lead to one place by "
        "several names",
    )
