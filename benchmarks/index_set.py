"""LIBERO's five suites in number: 130 files of 50 demonstrations, a million steps, tiny pictures.

What matters when a set is opened is how many files, data sets and steps there are; pictures
are not read then, so those of 8 pixels stand for those of 128.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

FILES, DEMOS, SIZE = 130, 50, 8
LENGTHS = (75, 235)
ROBOT = {"ee_pos": 3, "ee_ori": 3, "gripper_states": 2, "joint_states": 7}


def write(folder: Path) -> int:
    """Write the files; returns the number of steps."""
    random = np.random.default_rng(0)
    steps = 0
    for number in range(FILES):
        with h5py.File(folder / f"sort_the_noise_{number}_demo.hdf5", "w", libver="latest") as file:
            for demo in range(DEMOS):
                steps += _write_demo(file.create_group(f"data/demo_{demo}"), random)
    return steps


def _write_demo(group: h5py.Group, random: np.random.Generator) -> int:
    T = int(random.integers(*LENGTHS))
    group.create_dataset("actions", data=random.uniform(-1, 1, (T, 7)))
    for name, width in ROBOT.items():
        group.create_dataset(f"obs/{name}", data=0.1 * random.normal(size=(T, width)))
    for name in ("agentview_rgb", "eye_in_hand_rgb"):
        group.create_dataset(
            f"obs/{name}", data=random.integers(0, 256, (T, SIZE, SIZE, 3), np.uint8)
        )
    return T
