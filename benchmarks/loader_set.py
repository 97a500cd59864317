"""A gigabyte of demonstrations in LIBERO's layout, contiguous as its own scripts write them.

Pictures and numbers are noise: nothing can be compressed or guessed, and a wrong row shows.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import h5py
import numpy as np

FILES, DEMOS, SIZE = 2, 50, 128
LENGTHS = (75, 145)
ROBOT = {"ee_pos": 3, "ee_ori": 3, "ee_states": 6, "gripper_states": 2, "joint_states": 7}


def write(folder: Path) -> None:
    """Write the files and see them on the disk: pages not yet written cannot be evicted."""
    random = np.random.default_rng(0)
    for number in range(FILES):
        with h5py.File(folder / f"sort_the_noise_{number}_demo.hdf5", "w") as file:
            for demo in range(DEMOS):
                _write_demo(file.create_group(f"data/demo_{demo}"), random)
    os.sync()


def _write_demo(group: h5py.Group, random: np.random.Generator) -> None:
    T = int(random.integers(*LENGTHS))
    group.attrs["num_samples"] = T
    group.create_dataset("actions", data=random.uniform(-1, 1, (T, 7)))
    group.create_dataset("states", data=random.normal(size=(T, 110)))
    group.create_dataset("robot_states", data=random.normal(size=(T, 9)))
    for name in ("rewards", "dones"):
        group.create_dataset(name, data=np.zeros(T, np.uint8))
    for name, width in ROBOT.items():
        group.create_dataset(f"obs/{name}", data=0.1 * random.normal(size=(T, width)))
    for name in ("agentview_rgb", "eye_in_hand_rgb"):
        noise = np.frombuffer(random.bytes(T * SIZE * SIZE * 3), np.uint8)
        group.create_dataset(f"obs/{name}", data=noise.reshape(T, SIZE, SIZE, 3))


def evict(folder: Path) -> None:
    """Drop the files from memory; raises RuntimeError when a page in fifty stays."""
    for path in folder.glob("*.hdf5"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
        argv = ["fincore", "-b", "-n", "-o", "RES", str(path)]
        told = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        if int(told) > path.stat().st_size / 50:
            raise RuntimeError(f"{path}: {told.strip()} bytes stay in memory")
