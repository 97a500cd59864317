"""Scripted experts: put an object into the basket, put a bowl onto the plate.

They read the true geometry from the simulator and emit the same actions that a
policy emits: straight lines from above, grasp, lift, carry, lower, open. Whether
they succeeded is judged by the simulator alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from launcher.core.errors import UsageError
from rdt.sim.geometry import collision_points, rotation_z, surface_height
from rdt.sim.hand import CLOSE, DOWN, OPEN, Action, Hand, Vector
from rdt.sim.libero import Simulator

ABOVE = np.array([0.0, 0.0, 0.10])
TURN_COST = 0.006  # metres of a better grasp that are worth a radian of turning

RIM_M, RIM_DEPTH_M = 0.006, 0.012  # a bowl is held this far inside its rim, this far below it
RIM_BAND_M = 0.015
RIM_ANGLES = np.deg2rad(np.arange(90.0, 450.0, 45.0))
MARGIN_M = 0.006
SIDES = np.array([[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
REACH_M = 0.72  # from the base on the floor; a stretched arm cannot pull itself back


def expert(simulator: Simulator) -> Iterator[Action]:
    """Yield actions (7,) float32, one per control step, without end.

    Each action is computed from the state after the previous one was executed.
    Raises UsageError RDTL-U023 for a task that is neither of the two.
    """
    plan, target, place = _plan(simulator)
    hand = Hand(simulator.env)
    yield from plan(simulator, hand, target, place)
    while True:
        yield from hand.hold(OPEN, steps=1)


Plan = Callable[[Simulator, Hand, str, str], Iterator[Action]]


def _plan(simulator: Simulator) -> tuple[Plan, str, str]:
    """What to do, with which object and where."""
    names = tuple(simulator.env.obj_of_interest)
    movable = simulator.env.env.objects_dict
    if len(names) == 2 and set(names) <= set(movable):
        if names[1].startswith("basket"):
            return _into_basket, *names
        if "bowl" in names[0] and names[1].startswith("plate"):
            return _bowl_onto_plate, *names
    raise UsageError(
        "RDTL-U023",
        f"the scripted expert cannot do {simulator.info.name}",
        where="task.suite, task.task_id",
        why="it puts an object into a basket (libero_object) or a bowl onto a plate "
        "(libero_spatial)",
        fix="use one of those suites, or leave the expert out and give data in dataset.sets",
    )


def _into_basket(simulator: Simulator, hand: Hand, target: str, basket: str) -> Iterator[Action]:
    points = collision_points(simulator.env, target)
    grasp, rotation = _grasp(points)
    top = collision_points(simulator.env, basket)[:, 2].max()
    hang = grasp[2] - points[:, 2].min()  # how far the object reaches below the hand
    yield from _pick(hand, grasp, rotation, tolerance=0.009)
    carry = max(grasp[2] + 0.16, top + hang + 0.03)
    yield from hand.move(np.array([*grasp[:2], carry]), rotation, CLOSE, tolerance=0.02)
    over = hand.position()[:2] + _centre(simulator, basket) - _centre(simulator, target)
    yield from hand.move(np.array([*over, carry]), rotation, CLOSE, tolerance=0.012)
    yield from hand.move(np.array([*over, top + 0.06]), rotation, CLOSE, tolerance=0.012)
    yield from hand.hold(OPEN, steps=8)
    yield from hand.move(np.array([*over, top + 0.18]), rotation, OPEN, tolerance=0.02)


def _bowl_onto_plate(simulator: Simulator, hand: Hand, bowl: str, plate: str) -> Iterator[Action]:
    grasp, rotation = _rim_grasp(simulator, hand, bowl, plate)
    top = collision_points(simulator.env, plate)[:, 2].max()
    yield from _pick(hand, grasp, rotation, tolerance=0.006)
    carry = max(grasp[2] + 0.10, top + 0.20)
    yield from hand.move(np.array([*grasp[:2], carry]), rotation, CLOSE, tolerance=0.02)
    over = hand.position()[:2] + _centre(simulator, plate) - _centre(simulator, bowl)
    yield from hand.move(np.array([*over, carry]), rotation, CLOSE, tolerance=0.012)
    over = hand.position()[:2] + _centre(simulator, plate) - _centre(simulator, bowl)
    hang = hand.position()[2] - collision_points(simulator.env, bowl)[:, 2].min()
    low = np.array([*over, top + hang + 0.004])
    yield from hand.move(low, rotation, CLOSE, tolerance=0.008)
    yield from hand.hold(OPEN, steps=8)
    yield from hand.move(low + np.array([0, 0, 0.12]), rotation, OPEN, tolerance=0.02)


def _pick(hand: Hand, grasp: Vector, rotation: Vector, tolerance: float) -> Iterator[Action]:
    """From above down to ``grasp`` (3,), then close."""
    yield from hand.move(grasp + ABOVE, rotation, OPEN, tolerance=0.012)
    yield from hand.move(grasp, rotation, OPEN, tolerance, speed=0.6)
    yield from hand.hold(CLOSE, steps=10)


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
    costs = [_width(points[:, :2] - middle[:2], yaw) + TURN_COST * abs(yaw) for yaw in yaws]
    yaw = float(yaws[int(np.argmin(costs))])
    return np.array([*middle[:2], height]), rotation_z(yaw) @ DOWN


def _width(offsets: Vector, yaw: float) -> float:
    """Metres between the fingers for hand angle ``yaw``; ``offsets`` (k, 2) from the centre."""
    turned = offsets @ rotation_z(yaw)[:2, :2]
    band = turned[np.abs(turned[:, 0]) <= 0.03, 1]
    return float(np.ptp(band)) if band.size else 0.0


def _rim_grasp(simulator: Simulator, hand: Hand, bowl: str, plate: str) -> tuple[Vector, Vector]:
    """Position (3,) and rotation (3, 3) of the hand that holds the bowl by its rim.

    Of all places on the rim it takes one where the hand comes down without touching
    anything (cookie boxes and the walls of drawers stand close to some bowls), where
    neither bowl nor plate is beyond the arm's reach, and where it turns least.
    """
    centre, up, radius = _rim(simulator, bowl)
    plate_centre = _centre(simulator, plate)
    base = simulator.env.robots[0].base_pos[:2]
    shape = hand.shape()

    def grasp(angle: float) -> tuple[Vector, Vector]:
        out = np.array([np.cos(angle), np.sin(angle)])
        held = (radius - RIM_M) * np.array([*out, -(up[:2] @ out) / up[2]])
        return centre + held - [0, 0, RIM_DEPTH_M], rotation_z(_yaw(angle)) @ DOWN

    def cost(angle: float) -> tuple[float, float]:
        position, rotation = grasp(angle)
        placed = plate_centre + position[:2] - centre[:2]
        reach = max(float(np.linalg.norm(at - base)) for at in (position[:2], placed))
        blocked = _blocked(simulator, bowl, position + shape @ rotation.T)
        return blocked, max(reach - REACH_M, 0.0) + TURN_COST * abs(_yaw(angle))

    return grasp(min(RIM_ANGLES, key=cost))


def _rim(simulator: Simulator, bowl: str) -> tuple[Vector, Vector, float]:
    """Centre (3,) of the rim, the bowl's own upward direction (3,) and the rim's radius.

    A bowl may stand askew, on a ramekin for instance.
    """
    data, body = simulator.env.sim.data._data, simulator.env.env.obj_body_id[bowl]
    origin, rotation = data.xpos[body], data.xmat[body].reshape(3, 3)
    points = (collision_points(simulator.env, bowl) - origin) @ rotation
    top = points[:, 2].max()
    rim = points[points[:, 2] > top - RIM_BAND_M, :2]
    middle = (rim.min(axis=0) + rim.max(axis=0)) / 2
    radius = float(np.linalg.norm(rim - middle, axis=1).max())
    return origin + rotation @ [*middle, top], rotation[:, 2].copy(), radius


def _blocked(simulator: Simulator, bowl: str, swept: Vector) -> float:
    """How deep (metres) the hand's points (k, 3) would go into anything but the bowl when it
    comes straight down, with ``MARGIN_M`` to spare on all sides."""
    around = (swept[None] + MARGIN_M * SIDES[:, None]).reshape(-1, 3)
    depths = [surface_height(simulator.env, bowl, point + ABOVE) - point[2] for point in around]
    return max(0.0, *depths)


def _yaw(angle: float) -> float:
    """How far the hand turns, within a quarter turn, for fingers that open along ``angle``."""
    return float((angle + 1e-9) % np.pi - np.pi / 2)
