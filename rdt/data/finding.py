"""Which files lie in a folder, with none left out in silence."""

from __future__ import annotations

import os
from pathlib import Path

from launcher.core.errors import RdtlError


def hdf5_files(path: Path) -> list[Path]:
    """``path`` itself, or all `*.hdf5` in and below the folder, sorted.

    Links to folders are followed: suites often lie on other disks. Raises RdtlError
    RDTL-D014 for a folder that may not be read.
    """
    if not path.is_dir():
        return [path] if path.is_file() else []
    found: list[Path] = []
    seen: set[str] = set()
    for folder, inside, names in os.walk(path, followlinks=True, onerror=_refuse):
        real = os.path.realpath(folder)
        if real in seen:  # a link in a circle, or the same folder again
            inside.clear()
            continue
        seen.add(real)
        found += [Path(folder, name) for name in [*names, *inside] if name.endswith(".hdf5")]
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise may_not_be_read(Path(str(error.filename)), error) from error


def may_not_be_read(path: Path, error: OSError) -> RdtlError:
    """The error for a file or folder that is there and is not ours to read."""
    return RdtlError(
        "RDTL-D014",
        "a part of the data set cannot be read",
        where=f"{path}: {error.strerror}",
        why="without it fewer episodes would be learned than the data set has",
        fix="ask for the permission to read it (ls -ld), or name the parts that are wanted",
    )
