"""What the store of images may lose: what a newer build has replaced and nobody has used for days.

A task that waits in a queue names the file of its image, so age is counted from the last time
that somebody asked for the image, and the newest of every name stays whatever its age.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from launcher.core import files
from launcher.images.store import Store

DAY_S = 86_400.0


@dataclass(frozen=True)
class Waste:
    """Something that may go: its name for people, its size in bytes, days without use."""

    what: str
    path: Path
    size: int
    days: float


def find(store: Store, unused_days: float) -> list[Waste]:
    """Replaced images of Apptainer, and packages downloaded for them, unused for so long.

    Docker's images belong to their engine: `docker image prune` knows who uses them.
    """
    newest = {files.read_json(path)["key"] for path in store.root.glob("names/*.json")}
    found = []
    for image in store.images():
        folder = store.root / image.key
        if image.kind == "apptainer" and image.key not in newest:
            found.append(_waste(f"{image.name} {image.built}", folder, store.used(image.key)))
    for folder in store.root.glob("wheels/*"):
        found.append(_waste("packages of a lock", folder, folder.stat().st_mtime))
    return [one for one in found if one.days >= unused_days]


def _waste(what: str, folder: Path, used: float) -> Waste:
    size = sum(path.lstat().st_size for path in folder.rglob("*"))
    return Waste(what, folder, size, (time.time() - used) / DAY_S)
