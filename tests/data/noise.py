"""Small noise demonstrations, and what a batch of them must be, computed one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdt.data import unified
from rdt.spec.contract import Contract
from tests.data import writers
from tests.data.writers import Demo

WIDTHS = {"obs/ee_pos": 3, "obs/ee_ori": 3, "obs/gripper_states": 2, "obs/joint_states": 7}


def demos(
    lengths: Sequence[int], seed: int = 0, task: str = "sort_it", size: int = 8
) -> list[Demo]:
    """Demonstrations of the given lengths in control steps."""
    random = np.random.default_rng(seed)
    made = []
    for T in lengths:
        arrays: dict[str, NDArray[Any]] = {"actions": random.uniform(-1, 1, (T, 7))}
        arrays |= {name: random.normal(size=(T, width)) for name, width in WIDTHS.items()}
        for name in ("obs/agentview_rgb", "obs/eye_in_hand_rgb"):
            arrays[name] = random.integers(0, 256, (T, size, size, 3), np.uint8)
        made.append(Demo(task, task.replace("_", " "), arrays))
    return made


def write(demos: list[Demo], folder: Path) -> Path:
    """A folder with one file of contiguous pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    writers.write_regenerated(demos, folder)
    return folder


def sample(
    demos: list[Demo], number: int, contract: Contract, moments: int, horizon: int
) -> dict[str, NDArray[Any]]:
    """Sample ``number`` of the demonstrations, without any of the loader's means."""
    for episode, demo in enumerate(demos):  # noqa: B007
        if number < len(demo):
            break
        number -= len(demo)
    actions = [demo.arrays["actions"][min(number + k, len(demo) - 1)] for k in range(horizon)]
    robot = unified.RobotState(*(demo.arrays[name][number].astype(np.float32) for name in WIDTHS))
    names = {"agentview": "obs/agentview_rgb", "eye_in_hand": "obs/eye_in_hand_rgb"}
    size = demo.arrays["obs/agentview_rgb"].shape[1]
    pictures = np.full((moments, len(contract.cameras), size, size, 3), 127, np.uint8)
    present = np.zeros((moments, len(contract.cameras)), np.bool_)
    for moment in range(moments):
        row = number - (moments - 1) + moment
        for place, camera in enumerate(contract.cameras):
            if camera and row >= 0:
                raw = demo.arrays[names[camera]][row]
                turned = contract.camera_rotation == "180"
                pictures[moment, place] = raw[::-1, ::-1] if turned else raw
                present[moment, place] = True
    return {
        "episodes": np.array(episode),
        "actions": unified.encode_action(np.array(actions, np.float32), contract).astype(
            np.float32
        ),
        "valid": np.array([number + k < len(demo) for k in range(horizon)]),
        "states": unified.encode_state(robot, contract).astype(np.float32),
        "pictures": pictures,
        "present": present,
    }
