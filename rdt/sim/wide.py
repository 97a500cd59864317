"""The wide variant: shift the target object and the basket, so that looking matters.

LIBERO's initial states vary so little that replaying one demonstration blindly
succeeds most of the time. With ``task.wide_mm`` > 0 both objects of interest are
moved on the floor by up to that many millimetres along x and y. The shift is a
function of (env_seed, initial state) alone, hence part of the protocol.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RdtlError, UsageError
from rdt.sim.geometry import collision_points

CLEARANCE_M = 0.03
TRIES = 2000


def widened(
    env: Any, state: NDArray[np.float64], wide_mm: int, seed: tuple[int, int]
) -> NDArray[np.float64]:
    """A copy of ``state`` (n,) with target and goal object shifted; ``env`` keeps ``state``.

    ``seed`` is (env_seed, initial state). Raises RdtlError RDTL-E040 when no free place
    was found.
    """
    moved = tuple(env.obj_of_interest)
    env.set_state(state)
    env.sim.forward()
    boxes = {name: _footprint(env, name) for name in env.env.objects_dict}
    random = np.random.default_rng([*seed, 0x57494445])  # "WIDE": apart from other streams
    for _ in range(TRIES):
        shifts = random.uniform(-wide_mm / 1000, wide_mm / 1000, size=(2, 2))
        shifted = boxes | {
            name: boxes[name] + shift for name, shift in zip(moved, shifts, strict=True)
        }
        if not _collide(shifted, moved):
            return _shifted(env, state, dict(zip(moved, shifts, strict=True)))
    raise RdtlError(
        "RDTL-E040",
        f"no free place for {moved[0]} and {moved[1]} within {wide_mm} mm",
        where=f"task.wide_mm, initial state {seed[1]}",
        why="every random shift put them into a neighbour",
        fix="choose a smaller task.wide_mm",
    )


def require_supported(suite: str, wide_mm: int) -> None:
    """Raise UsageError RDTL-U022 when ``suite`` has objects that a shift would drop."""
    if wide_mm and not suite.startswith("libero_object"):
        raise UsageError(
            "RDTL-U022",
            "task.wide_mm works for libero_object only",
            where=f"task.wide_mm = {wide_mm}, task.suite = {suite}",
            why="elsewhere the objects of interest stand on furniture or are furniture",
            fix="set task.wide_mm to 0, or choose libero_object",
        )


def _footprint(env: Any, name: str) -> NDArray[np.float64]:
    """Axis-aligned box on the floor, rows lower and upper corner, metres."""
    points = collision_points(env, name)[:, :2]
    return np.stack([points.min(axis=0), points.max(axis=0)])


def _collide(boxes: dict[str, NDArray[np.float64]], moved: tuple[str, ...]) -> bool:
    """Whether a moved object is nearer than the clearance to any other object."""
    for name in moved:
        for other, box in boxes.items():
            gap = np.maximum(box[0] - boxes[name][1], boxes[name][0] - box[1])
            if other != name and np.all(gap < CLEARANCE_M):
                return True
    return False


def _shifted(
    env: Any, state: NDArray[np.float64], shifts: dict[str, NDArray[np.float64]]
) -> NDArray[np.float64]:
    result = state.copy()
    for name, shift in shifts.items():
        joint = env.env.objects_dict[name].joints[-1]
        first, _ = env.sim.model.get_joint_qpos_addr(joint)
        result[1 + first : 3 + first] += shift  # 1: the flattened state begins with the time
    return result
