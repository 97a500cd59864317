"""Demonstrations that were collected one by one become a task's file in LIBERO's layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np

from launcher.core import files
from launcher.core.errors import RefusedError
from rdt.data import hdf5
from rdt.data.libero_attributes import episode_names


def merge(target: Path, parts: Sequence[Path], told: Callable[[int], None]) -> None:
    """Publish ``target`` with the one demonstration of each part as demo_0, demo_1 …

    ``told`` hears how many are in it. Nothing but the parts decides the bytes. The parts
    stay. Raises RefusedError RDTL-D070 when they do not say the same of themselves.
    """
    with files.whole_file(target) as temporary, h5py.File(temporary, "w") as output:
        group = output.create_group("data")
        for number, part in enumerate(parts):
            _append(group, number, part)
            told(number + 1)


def _append(group: h5py.Group, number: int, part: Path) -> None:
    with hdf5.open_file(part) as file:
        source = file["data"]
        (name,) = episode_names(source, part)
        for key, value in source.attrs.items():
            if key in ("total", "num_demos"):
                continue
            if number == 0:
                group.attrs[key] = value
            elif not np.array_equal(group.attrs.get(key), value):
                raise RefusedError(
                    "RDTL-D070",
                    f"the demonstrations differ in {key}",
                    where=f"{part}: /data attribute {key} = {value!r}, "
                    f"the first part has {group.attrs.get(key)!r}",
                    why="they were collected under different settings",
                    fix=f"remove {part.parent} and collect again",
                )
        source.copy(name, group, f"demo_{number}")
    group.attrs["num_demos"] = number + 1
    group.attrs["total"] = group.attrs.get("total", 0) + len(group[f"demo_{number}/actions"])
