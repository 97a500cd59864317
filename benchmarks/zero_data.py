"""Copies of a data set with one of the mistakes that no program notices by itself.

``python -m benchmarks.zero_data MISTAKE SOURCE TARGET`` writes one. SOURCE is a file in
LIBERO's layout as `rdtl demo` collects it; the mistakes are those that public data sets and
loaders really have.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

CHUNK = 16
"""Actions of a chunk of the demo's network."""
METRES = 0.05
"""What LIBERO's 1 shifts the controller's goal by."""
GROUPS = ("agentview_rgb", "eye_in_hand_rgb")


def off_by_one(demo: h5py.Group) -> None:
    """Row t holds what was seen after action t, as upstream's files have it, without saying so."""
    for name, values in _arrays(demo).items():
        late = name.startswith("obs/") or name == "robot_states"
        cut = values[1:] if late else values[:-1]
        _replace(demo, name, cut - 1 if name == "obs/frame_step" else cut)
    demo.attrs["num_samples"] = len(demo["actions"])


def dropped_tail(demo: h5py.Group) -> None:
    """No chunk starts in the last rows of an episode, as with ``randint(0, T - chunk)``."""
    steps = demo["obs/frame_step"][:]
    first = max(len(steps) - CHUNK, 1)
    steps[first:] = steps[first - 1]
    _replace(demo, "obs/frame_step", steps)


def metres(demo: h5py.Group) -> None:
    """Translations in metres instead of LIBERO's raw numbers."""
    actions = demo["actions"][:]
    actions[:, :3] *= METRES
    _replace(demo, "actions", actions)


def gripper(demo: h5py.Group) -> None:
    """The gripper's command with the other sign."""
    actions = demo["actions"][:]
    actions[:, 6] *= -1
    _replace(demo, "actions", actions)


def mirrored(demo: h5py.Group) -> None:
    """Pictures mirrored left to right."""
    for name in GROUPS:
        _replace(demo, f"obs/{name}", demo[f"obs/{name}"][:][:, :, ::-1])


def turned(demo: h5py.Group) -> None:
    """Pictures turned by 180 degrees, as RLDS has them, in a file that should not."""
    for name in GROUPS:
        _replace(demo, f"obs/{name}", demo[f"obs/{name}"][:][:, ::-1, ::-1])


MISTAKES: dict[str, Callable[[h5py.Group], None]] = {
    make.__name__: make for make in (off_by_one, dropped_tail, metres, gripper, mirrored, turned)
}


def spoil(mistake: str, source: Path, target: Path) -> None:
    """Write ``target``, a copy of ``source`` with that mistake in every demonstration."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    with h5py.File(target, "r+") as file:
        for demo in file["data"].values():
            MISTAKES[mistake](demo)


def _arrays(demo: h5py.Group) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[:]

    demo.visititems(note)
    return found


def _replace(demo: h5py.Group, name: str, values: NDArray[Any]) -> None:
    if demo[name].shape == values.shape:
        demo[name][...] = values
        return
    del demo[name]
    demo[name] = np.ascontiguousarray(values)


if __name__ == "__main__":
    spoil(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
