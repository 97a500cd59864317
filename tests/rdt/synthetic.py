"""Small demonstration files in the real layout, with a hand that does what its actions say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rdt.data.rotations import quat_to_axis_angle

TASK = "pick_up_the_test_cube"
INSTRUCTION = "pick up the test cube"


def demonstration(number: int, steps: int = 24, size: int = 64, every: int = 3) -> dict[str, Any]:
    """Arrays of one demonstration: the fingers close half way, pictures depend on the state."""
    random = np.random.default_rng(number)
    actions = random.uniform(-0.5, 0.5, (steps, 7))
    actions[:, 6] = np.where(np.arange(steps) < steps // 2, -1.0, 1.0)
    moved = np.cumsum(actions, axis=0) - actions  # by all actions before this one
    positions = np.array([0.0, 0.0, 1.0]) + 0.0115 * moved[:, :3]
    tilt = 0.1 * random.standard_normal((steps, 3))
    quaternions = np.concatenate([tilt, np.ones((steps, 1))], axis=1)
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    opening = np.clip(-0.01 * moved[:, 6], 0.0, 0.04)
    fingers = np.stack([opening, -opening], axis=1)
    frame_step = np.arange(steps) // every * every
    pictures = random.integers(0, 256, (steps, size, size, 3), np.uint8)[frame_step]
    pictures[:, :, : size // 2] = (np.clip(positions - [0, 0, 1], 0, 1) * 255).astype(np.uint8)[
        frame_step, None, None
    ]
    axis_angle = np.stack([quat_to_axis_angle(q) for q in quaternions])
    return {
        "actions": actions,
        "executed_actions": actions,
        "states": random.standard_normal((steps, 5)),
        "robot_states": np.concatenate([fingers, positions, quaternions], axis=1),
        "rewards": np.zeros(steps, np.uint8),
        "dones": np.zeros(steps, np.uint8),
        "obs/agentview_rgb": pictures,
        "obs/eye_in_hand_rgb": pictures[:, ::-1].copy(),
        "obs/ee_pos": positions,
        "obs/ee_ori": axis_angle,
        "obs/ee_states": np.concatenate([positions, axis_angle], axis=1),
        "obs/gripper_states": fingers,
        "obs/joint_states": random.standard_normal((steps, 7)),
        "obs/frame_step": frame_step.astype(np.int64),
    }


def write(
    path: Path,
    demos: dict[str, dict[str, Any]],
    *,
    alignment: str | None = "before",
    userblock: int = 0,
    libver: str = "earliest",
    picture_options: dict[str, Any] | None = None,
) -> Path:
    """Write ``demos`` (name → arrays) to ``path``; options go to the picture datasets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=userblock, libver=libver) as file:
        group = file.create_group("data")
        group.attrs["bddl_file_name"] = f"/some/where/{TASK}.bddl"
        group.attrs["problem_info"] = json.dumps({"language_instruction": INSTRUCTION})
        group.attrs["env_args"] = json.dumps({"env_name": "Test"})
        if alignment is not None:
            group.attrs["obs_action_alignment"] = alignment
        for name, arrays in demos.items():
            demo = group.create_group(name)
            demo.attrs["num_samples"] = len(arrays["actions"])
            for key, values in arrays.items():
                options = (picture_options or {}) if key.endswith("_rgb") else {}
                demo.create_dataset(key, data=values, **options)
    return path


def write_parts(folder: Path, demos: int, **shape: int) -> None:
    """``demo_NNN.hdf5`` for each demonstration, as the collection leaves them."""
    for number in range(demos):
        part = folder / f"demo_{number:03d}.hdf5"
        write(part, {f"demo_{number:03d}": demonstration(number, **shape)})


def write_plan(run: Path, changes: dict[str, Any] | None = None, **train: Any) -> dict[str, Any]:
    """A run directory whose plan trains a tiny network; returns the configuration.

    ``changes`` of it are made by section, without the checks of a user's own.
    """
    from launcher.schema import Collect, RunConfig, Task
    from launcher.schema_train import Model, Train

    model = Model(
        hidden=32, depth=2, heads=2, horizon=8, vision_hidden=32, vision_depth=1, patch=32
    )
    settings = {"micro_batch": 2, "effective_batch": 4, "warmup_steps": 4, **train}
    config = RunConfig(
        name="tiny",
        task=Task(camera_size=64),
        collect=Collect(demos=3),
        train=Train(model=model, **settings),
    ).model_dump(mode="json")
    for section, values in (changes or {}).items():
        config[section] = values and config[section] | values
    run.mkdir(parents=True, exist_ok=True)
    (run / "plan.json").write_text(json.dumps({"config": config}))
    return config
