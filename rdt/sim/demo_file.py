"""Writing one demonstration in LIBERO's HDF5 layout (docs/architecture.md, "Demonstration file").

Upstream's tools can read the file. It differs from upstream's own data where its
attributes say so: observations stand *before* their action, and `frame_step` tells
which rows have a picture of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from launcher.core.errors import RdtlError
from rdt.data.rotations import quat_to_axis_angle
from rdt.policy.policy import Observation
from rdt.sim.demonstration import Frame, Run
from rdt.sim.libero import Simulator

PICTURES = {"agentview_rgb": "agentview", "eye_in_hand_rgb": "eye_in_hand"}


def write(
    path: Path, name: str, simulator: Simulator, run: Run, frames: list[Frame], settings: str
) -> None:
    """Create ``path`` with the single demonstration /data/``name``.

    ``settings`` is a canonical text of everything the content depends on; it is
    stored so that :func:`belongs` can recognise the file. Raises OSError.
    """
    with path.open("w+b") as raw, h5py.File(raw, "w") as file:  # by name, a full disk crashes it
        group = file.create_group("data")
        group.attrs.update(_task_attributes(simulator))
        group.attrs["collection"] = settings
        demo = group.create_group(name)
        demo.attrs["num_samples"] = len(frames)
        demo.attrs["model_file"] = simulator.env.sim.model.get_xml()
        demo.attrs["init_state"] = run.states[0]
        demo.attrs["init_state_id"] = run.init_state
        demo.attrs["retry"] = run.retry
        _write_steps(demo, run, frames)
        _write_observations(demo.create_group("obs"), frames)


def _task_attributes(simulator: Simulator) -> dict[str, Any]:
    info, env = simulator.info, simulator.env
    bddl = f"bddl_files/{info.suite}/{info.bddl.name}"
    env_args = {
        "type": 1,
        "env_name": env.problem_name,
        "problem_name": env.problem_name,
        "bddl_file": bddl,
        "env_kwargs": {
            "bddl_file_name": bddl,
            "controller": "OSC_POSE",
            "control_freq": 20,
            "camera_names": ["agentview", "robot0_eye_in_hand"],
            "camera_heights": simulator.task["camera_size"],
            "camera_widths": simulator.task["camera_size"],
        },
    }
    problem = {
        "problem_name": env.problem_name,
        "domain_name": env.domain_name,
        "language_instruction": info.instruction,
    }
    return {
        "env_args": json.dumps(env_args),
        "env_name": env.problem_name,
        "bddl_file_name": bddl,
        "bddl_file_content": info.bddl.read_text(encoding="utf-8"),
        "problem_info": json.dumps(problem),
        "macros_image_convention": "opengl",
        "obs_action_alignment": "before",
    }


def _write_steps(demo: h5py.Group, run: Run, frames: list[Frame]) -> None:
    last = np.zeros(len(frames), np.uint8)
    last[-1] = 1
    felt = [frame.observation for frame in frames]
    demo["actions"] = run.label.astype(np.float64)
    demo["executed_actions"] = run.executed.astype(np.float64)
    demo["states"] = run.states
    demo["robot_states"] = np.stack(
        [np.concatenate([o.gripper_qpos, o.eef_pos, o.eef_quat]) for o in felt]
    )
    demo["rewards"] = last
    demo["dones"] = last


def _write_observations(obs: h5py.Group, frames: list[Frame]) -> None:
    def rows(value: Callable[[Observation], Any]) -> Any:
        return np.stack([value(frame.observation) for frame in frames])

    position = rows(lambda o: o.eef_pos)
    rotation = rows(lambda o: quat_to_axis_angle(o.eef_quat))
    obs["ee_pos"] = position
    obs["ee_ori"] = rotation
    obs["ee_states"] = np.concatenate([position, rotation], axis=1)
    obs["gripper_states"] = rows(lambda o: o.gripper_qpos)
    obs["joint_states"] = rows(lambda o: o.joint_pos)
    obs["frame_step"] = np.array([frame.frame_step for frame in frames], np.int64)
    for dataset, camera in PICTURES.items():
        obs[dataset] = np.stack([frame.pictures[camera] for frame in frames])


def require_belongs(path: Path, name: str, settings: str) -> None:
    """Check that an existing file is this demonstration, whole.

    Raises RdtlError RDTL-D042 naming the file otherwise; nothing is overwritten.
    """
    try:
        with h5py.File(path, "r") as file:
            group = file["data"]
            found = str(group.attrs["collection"])
            rows = len(group[name]["actions"])
            whole = rows == int(group[name].attrs["num_samples"])
    except (OSError, KeyError) as error:
        raise _foreign(path, f"it cannot be read: {error}") from error
    if found != settings:
        raise _foreign(path, "it was collected under other settings")
    if not whole:
        raise _foreign(path, "rows are missing")


def _foreign(path: Path, why: str) -> RdtlError:
    return RdtlError(
        "RDTL-D042",
        "a file is in the way of a demonstration",
        where=str(path),
        why=f"{why}; mixing it with the others would make another data set",
        fix=f"look at it, then remove it and run the same command again: rm {path}",
    )
