"""Reading LIBERO demonstration files: every row with a picture becomes a sample.

Low-dimensional arrays are kept in memory, flat over all episodes; pictures are
read when they are asked for. Upstream's files hold the observation *after* each
action; ours say ``obs_action_alignment = "before"``. Here row t always is what is
seen before action t, whatever the file has (RDTL-D027).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RdtlError
from rdt.data import hdf5, unified
from rdt.spec.contract import LIBERO_VELOCITY, Contract

CAMERA_DATASETS = {"agentview": "obs/agentview_rgb", "eye_in_hand": "obs/eye_in_hand_rgb"}


@dataclass(frozen=True)
class Episode:
    """One demonstration after alignment; arrays have one row per control step.

    ``state`` (T, 128) float64 in units of the contract, not normalised; ``actions``
    (T, 7) float64 in [-1, 1], -1 = open; ``sampled`` (n,) int64: rows with a picture
    of their own; ``quaternion`` (T, 4) xyzw of the hand, None when not recorded.
    """

    name: str
    state: NDArray[np.float64]
    actions: NDArray[np.float64]
    sampled: NDArray[np.int64]
    axis_angle: NDArray[np.float64]
    gripper_qpos: NDArray[np.float64]
    quaternion: NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.actions)


class Demonstrations:
    """All episodes of one file; `windows` enumerates the samples in file order.

    ``windows`` (n, 2) int64: episode and row of each sample. ``instruction`` is the
    task in words. Raises RdtlError RDTL-D013, D014, D020 or D027 on construction.
    """

    def __init__(self, path: Path, contract: Contract = LIBERO_VELOCITY) -> None:
        self.path = path
        self.contract = contract
        self._file = hdf5.open_file(path)
        self._rows = hdf5.RowReader(path)
        group = _require(self._file, "data", path)
        self._shift = 0 if _alignment(group, path) == "before" else 1
        self.instruction = _instruction(group, path)
        self.task = task_name(group, path)
        self.episodes = [self._episode(group, name) for name in episode_names(group, path)]
        self._cameras = [self._camera_names(group, episode) for episode in self.episodes]
        self.windows = np.concatenate(
            [
                np.stack([np.full_like(episode.sampled, index), episode.sampled], axis=1)
                for index, episode in enumerate(self.episodes)
            ]
        )
        self.camera_size = int(group[self._cameras[0][0]].shape[1])

    def _episode(self, group: h5py.Group, name: str) -> Episode:
        demo, shift = group[name], self._shift
        actions = _array(demo, "actions", self.path)[shift:]
        T = len(actions)
        robot = unified.RobotState(
            *(
                _array(demo, f"obs/{part}", self.path)[:T]
                for part in ("ee_pos", "ee_ori", "gripper_states", "joint_states")
            )
        )
        sampled = np.arange(T)
        if "obs/frame_step" in demo:
            sampled = np.flatnonzero(demo["obs/frame_step"][:T] == sampled)
        recorded = demo["robot_states"][:T, 5:9] if "robot_states" in demo else None
        return Episode(
            name=name,
            state=unified.encode_state(robot, self.contract),
            actions=actions,
            sampled=sampled,
            axis_angle=np.asarray(robot.axis_angle),
            gripper_qpos=np.asarray(robot.gripper_qpos),
            quaternion=None if recorded is None else recorded.astype(np.float64),
        )

    def pictures(self, windows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Fill ``out`` (n, cameras, S, S, 3) uint8, raw, for rows (n, 2) of `windows`."""
        for episode, row in windows:
            for name in self._cameras[episode]:
                self._rows.prefetch(name, int(row))
        for sample, (episode, row) in enumerate(windows):
            for camera, name in enumerate(self._cameras[episode]):
                self._rows.read(name, int(row), out[sample, camera])

    def _camera_names(self, group: h5py.Group, episode: Episode) -> list[str]:
        demo = group[episode.name]
        paths = [CAMERA_DATASETS[camera] for camera in self.contract.cameras]
        return [self._rows.add(_require(demo, path, self.path)) for path in paths]

    def chunk(self, episode: int, row: int, horizon: int) -> tuple[NDArray[np.float64], int]:
        """Actions (horizon, 7) from ``row`` on, padded with the last one, and how many are real."""
        actions = self.episodes[episode].actions
        steps = np.minimum(np.arange(row, row + horizon), len(actions) - 1)
        return actions[steps], min(horizon, len(actions) - row)


def episode_names(group: h5py.Group, path: Path) -> list[str]:
    """Names of the demonstrations in the order of their numbers; RDTL-D014 when there is none."""
    numbered = sorted(
        (int(m[1]), m[0]) for m in (re.fullmatch(r"demo_(\d+)", n) for n in group) if m
    )
    if not numbered:
        raise RdtlError(
            "RDTL-D014",
            "a demonstration file holds no demonstration",
            where=f"{path}: /data has no group demo_N",
            why="there is nothing to learn from",
            fix="collect again, or name another file",
        )
    return [name for _, name in numbered]


def task_name(group: h5py.Group, path: Path) -> str:
    """The task's name: the stem of the file that describes its scene."""
    return Path(str(_attribute(group, "bddl_file_name", path))).stem


def _alignment(group: h5py.Group, path: Path) -> str:
    """Upstream's files do not say it, and hold observations after the action."""
    value = str(group.attrs.get("obs_action_alignment", "after"))
    if value not in ("before", "after"):
        raise RdtlError(
            "RDTL-D027",
            "the alignment of observations and actions is not known",
            where=f"{path}: /data attribute obs_action_alignment = {value!r}",
            why="off by one, every action would answer the wrong picture",
            fix='write "before" or "after" there, after replaying a demonstration to find out',
        )
    return value


def _instruction(group: h5py.Group, path: Path) -> str:
    information: dict[str, Any] = json.loads(str(_attribute(group, "problem_info", path)))
    text = "".join(information.get("language_instruction", "")).strip().strip('"')
    if not text:
        raise RdtlError(
            "RDTL-D020",
            "a demonstration file has no instruction",
            where=f"{path}: /data attribute problem_info, key language_instruction",
            why="the policy is conditioned on the words of the task",
            fix="collect again, or add the instruction to the file",
        )
    return text


def _attribute(group: h5py.Group, name: str, path: Path) -> Any:
    if name not in group.attrs:
        raise RdtlError(
            "RDTL-D014",
            f"a demonstration file lacks the attribute {name}",
            where=f"{path}: /data",
            why="it is part of LIBERO's layout and tells what the file is about",
            fix="use a file in LIBERO's layout, or collect again",
        )
    return group.attrs[name]


def _require(parent: h5py.Group, name: str, path: Path) -> Any:
    if name not in parent:
        raise RdtlError(
            "RDTL-D014",
            f"a demonstration file lacks {name}",
            where=f"{path}: {parent.name}",
            why="it is part of LIBERO's layout",
            fix="use a file in LIBERO's layout, or collect again",
        )
    return parent[name]


def _array(demo: h5py.Group, name: str, path: Path) -> NDArray[np.float64]:
    values: NDArray[np.float64] = _require(demo, name, path)[:].astype(np.float64)
    return values
