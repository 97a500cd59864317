"""States and actions of LIBERO in RDT's 128 slots, and back. The only place that does it.

Training and evaluation call the same functions, so a unit, a sign or a rotation
form cannot differ between them. Which slot means what, and by which factor, is the
contract's business (:mod:`rdt.spec.contract`); here stands how each of its sources
is read. Arrays may have any leading axes (...).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdt.data import rotations
from rdt.spec.contract import UNIFIED_SIZE, Contract, Part

Float = NDArray[np.float64]
EULER_RAD = 0.5  # LIBERO's controller turns its goal by this much at |a| = 1


class RobotState(NamedTuple):
    """What LIBERO says of its robot.

    eef_pos (..., 3) m in the world frame, axis_angle (..., 3) rad as `ee_ori`,
    gripper_qpos (..., 2) m, opposite signs, open about +0.04/-0.04, joint_pos
    (..., 7) rad.
    """

    eef_pos: ArrayLike
    axis_angle: ArrayLike
    gripper_qpos: ArrayLike
    joint_pos: ArrayLike


def _opening(state: RobotState) -> Float:
    fingers = np.asarray(state.gripper_qpos, np.float64)
    return fingers[..., :1] - fingers[..., 1:]


STATE_SOURCES: dict[str, Callable[[RobotState], Float]] = {
    "joint_pos": lambda state: np.asarray(state.joint_pos, np.float64),
    "eef_pos": lambda state: np.asarray(state.eef_pos, np.float64),
    "axis_angle as 6d": lambda state: rotations.axis_angle_to_6d(state.axis_angle),
    # One fork's training reads the axis-angle numbers as Euler angles: so does its checkpoint.
    "axis_angle read as euler, as 6d": lambda state: rotations.euler_to_6d(state.axis_angle),
    "fingers": lambda state: np.asarray(state.gripper_qpos, np.float64),
    "first finger": lambda state: np.asarray(state.gripper_qpos, np.float64)[..., :1],
    "distance of the fingers": _opening,
}

Codec = tuple[slice, Callable[[Float], Float], Callable[[Float], Float]]
ACTION_SOURCES: dict[str, Codec] = {
    "translation": (slice(0, 3), np.asarray, np.asarray),
    "rotation": (slice(3, 6), np.asarray, np.asarray),
    "rotation as 6d of euler": (
        slice(3, 6),
        lambda values: rotations.euler_to_6d(EULER_RAD * values),
        lambda columns: rotations.euler_of_6d(columns) / EULER_RAD,
    ),
    "gripper": (slice(6, 7), np.asarray, np.asarray),
    "gripper sign": (slice(6, 7), np.asarray, lambda values: np.where(values < 0, -1.0, 1.0)),
}


def encode_state(state: RobotState, contract: Contract) -> Float:
    """The robot's state in (..., 128), in units of the contract, not normalised; else 0."""
    parts = {part: STATE_SOURCES[part.source](state) for part in contract.state}
    return _scatter(parts)


def normalise_state(
    state: Float, mean: ArrayLike, std: ArrayLike, contract: Contract
) -> NDArray[np.float32]:
    """(..., 128) in units of the contract to what the network eats, float32, unused slots 0.

    With z-scores a spread below the contract's floor counts as the floor: a slot that
    hardly ever moved in the data must not turn a millimetre in the evaluation into a
    huge score.
    """
    if contract.state_normalisation == "none":
        return state.astype(np.float32)
    slots = list(contract.state_slots)
    spread = np.maximum(np.asarray(std, np.float64)[slots], contract.state_std_floor)
    out = np.zeros_like(state)
    out[..., slots] = (state[..., slots] - np.asarray(mean, np.float64)[slots]) / spread
    return out.astype(np.float32)


def encode_action(actions: ArrayLike, contract: Contract) -> Float:
    """LIBERO actions (..., 7) in [-1, 1], last one -1 = open, to (..., 128) float64."""
    values = np.asarray(actions, dtype=np.float64)
    parts = {}
    for part in contract.action:
        where, encode, _ = ACTION_SOURCES[part.source]
        parts[part] = encode(values[..., where])
    return _scatter(parts)


def decode_action(unified: ArrayLike, contract: Contract) -> NDArray[np.float32]:
    """Inverse of :func:`encode_action`, clipped to [-1, 1]: (..., 128) to (..., 7) float32."""
    values = np.asarray(unified, dtype=np.float64)
    out = np.empty((*values.shape[:-1], 7))
    for part in contract.action:
        where, _, decode = ACTION_SOURCES[part.source]
        out[..., where] = decode((values[..., list(part.slots)] - part.offset) / part.scale)
    return out.clip(-1.0, 1.0).astype(np.float32)


def _scatter(parts: dict[Part, Float]) -> Float:
    leading = next(iter(parts.values())).shape[:-1]
    out = np.zeros((*leading, UNIFIED_SIZE))
    for part, values in parts.items():
        low = -np.inf if part.low is None else part.low
        high = np.inf if part.high is None else part.high
        out[..., list(part.slots)] = (values * part.scale + part.offset).clip(low, high)
    return out
