"""The demonstrations of one task as samples: every row with a picture becomes one.

A view of an :class:`rdt.data.store.EpisodeStore` in the slots of a contract. Row t
always is what is seen before action t, whatever the file has (RDTL-D027).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rdt.data import unified
from rdt.data.store import EpisodeStore, open_store
from rdt.spec.contract import LIBERO_VELOCITY, Contract


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
    task in words, ``store`` what this is a view of. Raises what
    :func:`rdt.data.store.open_store` raises.
    """

    def __init__(self, path: Path, contract: Contract = LIBERO_VELOCITY) -> None:
        self.path = path
        self.contract = contract
        self.store = store = open_store(path)
        store.require(contract)
        self.instruction = store.episodes[0].instruction
        self.task = store.episodes[0].task
        self.episodes = [_episode(store, number, contract) for number in range(len(store.starts))]
        self.windows = np.concatenate(
            [
                np.stack([np.full_like(episode.sampled, index), episode.sampled], axis=1)
                for index, episode in enumerate(self.episodes)
            ]
        )
        self.camera_size = store.picture_size

    def pictures(self, windows: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Fill ``out`` (n, cameras, S, S, 3) uint8, raw, for rows (n, 2) of `windows`."""
        steps = self.store.starts[windows[:, 0]] + windows[:, 1]
        self.store.pictures(
            steps, {name: out[:, camera] for camera, name in enumerate(self.contract.cameras)}
        )

    def chunk(self, episode: int, row: int, horizon: int) -> tuple[NDArray[np.float64], int]:
        """Actions (horizon, 7) from ``row`` on, padded with the last one, and how many are real."""
        actions = self.episodes[episode].actions
        steps = np.minimum(np.arange(row, row + horizon), len(actions) - 1)
        return actions[steps], min(horizon, len(actions) - row)


def _episode(store: EpisodeStore, number: int, contract: Contract) -> Episode:
    rows = slice(store.starts[number], store.ends[number])
    robot = unified.RobotState(*(np.asarray(part, np.float64)[rows] for part in store.robot))
    inside = (store.sampled >= rows.start) & (store.sampled < rows.stop)
    return Episode(
        name=store.episodes[number].name,
        state=unified.encode_state(robot, contract),
        actions=store.actions[rows].astype(np.float64),
        sampled=store.sampled[inside] - rows.start,
        axis_angle=np.asarray(robot.axis_angle),
        gripper_qpos=np.asarray(robot.gripper_qpos),
        quaternion=None if store.quaternion is None else store.quaternion[rows],
    )
