"""Reference policies: what a success rate must be compared with.

The expert shows that the task can be solved, the zero policy that it does not
solve itself, and blind replay of one demonstration how much can be had without
looking. All are blind and answer one action per query.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rdt.policy.policy import Observation
from rdt.sim.expert import expert
from rdt.sim.libero import Simulator
from rdt.spec.protocol import SETTLE_ACTION
from rdt.spec.record import EpisodeKey

STILL = np.array(SETTLE_ACTION, np.float32)


class Expert:
    """The scripted expert, reading the simulator's ground truth."""

    sees = False
    sees_previous = False

    def begin(self, simulator: Simulator, key: EpisodeKey) -> None:
        """Start over from the present state."""
        self._actions: Iterator[NDArray[np.float32]] = expert(simulator)

    def chunk(self, observation: Observation, query: int) -> NDArray[np.float32]:
        """One action (1, 7) from the state of this very moment."""
        return next(self._actions)[None]


class Zero:
    """Stands still with an open gripper."""

    sees = False
    sees_previous = False

    def begin(self, simulator: Simulator, key: EpisodeKey) -> None:
        """Nothing to prepare."""

    def chunk(self, observation: Observation, query: int) -> NDArray[np.float32]:
        """The action (1, 7) that changes nothing."""
        return STILL[None]


class Replay:
    """Executes recorded ``actions`` (T, 7) float32 whatever it sees, then stands still."""

    sees = False
    sees_previous = False

    def __init__(self, actions: NDArray[np.float32]) -> None:
        self._actions = np.concatenate([actions, STILL[None]])

    def begin(self, simulator: Simulator, key: EpisodeKey) -> None:
        """Nothing to prepare."""

    def chunk(self, observation: Observation, query: int) -> NDArray[np.float32]:
        """The recorded action (1, 7) of this step."""
        return self._actions[min(query, len(self._actions) - 1)][None]


def first_demonstration(path: Path, gripper_open: int = -1) -> NDArray[np.float32]:
    """Executed actions (T, 7) of the first demonstration of a LIBERO HDF5 file.

    ``gripper_open``: the sign of their last number that opens the gripper; the simulator's is -1.
    Upstream's files have no noise, so there the labels are what was executed.
    Raises RdtlError RDTL-D013 (damaged) or RDTL-D014 (missing, empty).
    """
    from rdt.data import hdf5  # h5py, which only this reference needs
    from rdt.data.libero_attributes import episode_names

    with hdf5.open_file(path) as file:
        demo = file["data"][episode_names(file["data"], path)[0]]
        name = "executed_actions" if "executed_actions" in demo else "actions"
        actions = np.asarray(demo[name][:], np.float32)
    actions[:, 6] *= -gripper_open
    return actions
