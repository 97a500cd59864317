"""A scripted expert for pick-and-place into a basket (the tasks of libero_object).

It reads the true geometry from the simulator and emits the same actions that a
policy emits: straight lines from above, grasp, lift, carry, lower, open. Whether
it succeeded is judged by the simulator alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import UsageError
from rdt.sim.geometry import collision_points, rotation_vector, rotation_z
from rdt.sim.libero import Simulator

Action = NDArray[np.float32]
Vector = NDArray[np.float64]

OPEN, CLOSE = -1.0, 1.0
GOAL_M = 0.05  # an action of 1 moves the controller's goal by this much
GOAL_RAD = 0.5
DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # fingers open along y
ABOVE = np.array([0.0, 0.0, 0.10])
ANGLE_TOLERANCE = 0.08
WAYPOINT_STEPS = 60


def expert(simulator: Simulator) -> Iterator[Action]:
    """Yield actions (7,) float32, one per control step, without end.

    Each action is computed from the state after the previous one was executed.
    Raises UsageError RDTL-U023 for a task that is no pick-and-place into a basket.
    """
    target, basket = _objects(simulator)
    hand = Hand(simulator.env)
    points = collision_points(simulator.env, target)
    grasp, rotation = _grasp(points)
    top = collision_points(simulator.env, basket)[:, 2].max()
    hang = grasp[2] - points[:, 2].min()  # how far the object reaches below the hand
    yield from hand.move(grasp + ABOVE, rotation, OPEN, tolerance=0.012)
    yield from hand.move(grasp, rotation, OPEN, tolerance=0.009, speed=0.6)
    yield from hand.hold(CLOSE, steps=10)
    carry = max(grasp[2] + 0.16, top + hang + 0.03)
    yield from hand.move(np.array([*grasp[:2], carry]), rotation, CLOSE, tolerance=0.02)
    over = hand.position()[:2] + _centre(simulator, basket) - _centre(simulator, target)
    yield from hand.move(np.array([*over, carry]), rotation, CLOSE, tolerance=0.012)
    yield from hand.move(np.array([*over, top + 0.06]), rotation, CLOSE, tolerance=0.012)
    yield from hand.hold(OPEN, steps=8)
    yield from hand.move(np.array([*over, top + 0.18]), rotation, OPEN, tolerance=0.02)
    while True:
        yield from hand.hold(OPEN, steps=1)


def _objects(simulator: Simulator) -> tuple[str, str]:
    names = tuple(simulator.env.obj_of_interest)
    movable = simulator.env.env.objects_dict
    if len(names) != 2 or names[0] not in movable or not names[1].startswith("basket"):
        raise UsageError(
            "RDTL-U023",
            f"the scripted expert cannot do {simulator.info.name}",
            where="task.suite, task.task_id",
            why="it only knows how to put an object into a basket (libero_object)",
            fix="use libero_object, or leave the expert out and give dataset.path",
        )
    return names[0], names[1]


def _centre(simulator: Simulator, name: str) -> Vector:
    """Middle (2,) of the object's extent on the floor, metres."""
    points = collision_points(simulator.env, name)[:, :2]
    middle: Vector = (points.min(axis=0) + points.max(axis=0)) / 2
    return middle


def _grasp(points: Vector) -> tuple[Vector, Vector]:
    """Position (3,) and rotation (3, 3) of the hand for a grasp from above."""
    low, high = points.min(axis=0), points.max(axis=0)
    middle = (low + high) / 2
    tall = high[2] - low[2] > 0.05
    height = (
        max(high[2] - 0.035, low[2] + 0.012) if tall else max(low[2] + 0.010, middle[2] - 0.002)
    )
    yaws = np.deg2rad(np.arange(-90, 91, 5))
    costs = [_width(points[:, :2] - middle[:2], yaw) + 0.006 * abs(yaw) for yaw in yaws]
    yaw = float(yaws[int(np.argmin(costs))])
    return np.array([*middle[:2], height]), rotation_z(yaw) @ DOWN


def _width(offsets: Vector, yaw: float) -> float:
    """Metres between the fingers for hand angle ``yaw``; ``offsets`` (k, 2) from the centre."""
    turned = offsets @ rotation_z(yaw)[:2, :2]
    band = turned[np.abs(turned[:, 0]) <= 0.03, 1]
    return float(np.ptp(band)) if band.size else 0.0


class Hand:
    """The hand as the controller steers it: its grip site."""

    def __init__(self, env: Any) -> None:
        self._data = env.sim.data._data
        self._site = env.sim.model.site_name2id(env.robots[0].controller.eef_name)

    def position(self) -> Vector:
        """Position (3,) in metres, world frame."""
        return np.array(self._data.site_xpos[self._site])

    def rotation(self) -> Vector:
        """Rotation (3, 3) of the site, world frame."""
        return np.array(self._data.site_xmat[self._site]).reshape(3, 3)

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
