"""The robot's hand as a script steers it: straight lines in the actions that a policy emits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdt.sim.geometry import geom_points, rotation_vector

Action = NDArray[np.float32]
Vector = NDArray[np.float64]

OPEN, CLOSE = -1.0, 1.0
GOAL_M = 0.05  # an action of 1 moves the controller's goal by this much
GOAL_RAD = 0.5
DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # fingers open along y
ANGLE_TOLERANCE = 0.08
WAYPOINT_STEPS = 60


class Hand:
    """The hand as the controller steers it: its grip site."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self._data = env.sim.data._data
        self._site = env.sim.model.site_name2id(env.robots[0].controller.eef_name)
        self._geoms = [
            env.sim.model.geom_name2id(name) for name in env.robots[0].gripper.contact_geoms
        ]

    def position(self) -> Vector:
        """Position (3,) in metres, world frame."""
        return np.array(self._data.site_xpos[self._site])

    def rotation(self) -> Vector:
        """Rotation (3, 3) of the site, world frame."""
        return np.array(self._data.site_xmat[self._site]).reshape(3, 3)

    def shape(self) -> Vector:
        """Points (k, 3) in metres that span hand and fingers as they stand, in the site's frame."""
        return (geom_points(self._env, self._geoms) - self.position()) @ self.rotation()

    def move(
        self, goal: Vector, rotation: Vector, gripper: float, tolerance: float, speed: float = 1.0
    ) -> Iterator[Action]:
        """Actions towards ``goal`` (3,) until it is reached within ``tolerance`` metres."""
        for _ in range(WAYPOINT_STEPS):
            offset = goal - self.position()
            turn = rotation_vector(rotation @ self.rotation().T)
            if np.linalg.norm(offset) < tolerance and np.linalg.norm(turn) < ANGLE_TOLERANCE:
                return
            yield _action(
                np.clip(offset / GOAL_M, -speed, speed),
                np.clip(turn / GOAL_RAD, -0.5, 0.5),
                gripper,
            )

    def hold(self, gripper: float, steps: int) -> Iterator[Action]:
        """Actions that stand still and drive the gripper."""
        for _ in range(steps):
            yield _action(np.zeros(3), np.zeros(3), gripper)


def _action(translation: Vector, turn: Vector, gripper: float) -> Action:
    return np.concatenate([translation, turn, [gripper]]).astype(np.float32)
