"""What a policy is: observation in, chunk of environment actions out. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RdtlError
from rdt.spec.record import EpisodeKey

if TYPE_CHECKING:
    from rdt.sim.libero import Simulator


@dataclass(frozen=True)
class Observation:
    """What the robot sees and feels at one control step, in LIBERO's own conventions.

    ``pictures`` maps camera name ("agentview", "eye_in_hand") to (S, S, 3) uint8,
    raw, that is bottom row first; empty when nothing was rendered. ``eef_pos`` (3,)
    metres in the world frame; ``eef_quat`` (4,) xyzw of the hand body;
    ``gripper_qpos`` (2,) metres, opposite signs, open about +0.04/-0.04;
    ``joint_pos`` (7,) radians. ``previous`` holds the pictures of the control step
    before; None when there was none, or when it was not rendered.
    """

    pictures: dict[str, NDArray[np.uint8]]
    eef_pos: NDArray[np.float64]
    eef_quat: NDArray[np.float64]
    gripper_qpos: NDArray[np.float64]
    joint_pos: NDArray[np.float64]
    instruction: str
    previous: dict[str, NDArray[np.uint8]] | None = None


class EpisodeError(RdtlError):
    """The policy failed in this episode; another try, or another episode, may go well."""


class Policy(Protocol):
    """A policy under evaluation. One instance serves many episodes, one after another."""

    sees: bool
    """Whether it needs rendered pictures at query steps."""
    sees_previous: bool
    """Whether it also needs those of the control step before."""

    def begin(self, simulator: Simulator, key: EpisodeKey) -> None:
        """Called once per episode after settling; only references may read the simulator."""

    def chunk(self, observation: Observation, query: int) -> NDArray[np.float32]:
        """Actions (n, 7) in [-1, 1] for the next n >= 1 control steps; the harness executes at
        most the execution horizon. ``query`` counts from 0 within the episode."""
