"""States and actions of LIBERO in RDT's 128 slots, and back. The only place that does it.

Training and evaluation call the same functions, so a unit, a sign or a rotation
form cannot differ between them. Which slot means what is the contract's
business (:mod:`rdt.spec.contract`). Arrays may have any leading axes (...).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdt.spec.contract import LIBERO_VELOCITY, UNIFIED_SIZE, Contract

Float = NDArray[np.float64]


def quat_to_axis_angle(quat: ArrayLike) -> Float:
    """Quaternion (4,) xyzw to axis times angle (3,) in rad, angles 0 … 2π as in `ee_ori`.

    The arc tangent keeps small angles exact, where the widely copied formula with the
    arc cosine is off by up to a twentieth of a radian (and clips its argument in place).
    """
    quaternion = np.asarray(quat, dtype=np.float64)
    sine = math.hypot(*quaternion[:3])  # squares of tiny parts would underflow
    if sine == 0.0:
        return np.zeros(3)
    return quaternion[:3] / sine * (2.0 * math.atan2(sine, quaternion[3]))


def rotation_6d(axis_angle: ArrayLike) -> Float:
    """Axis times angle (..., 3) in rad to the first two matrix columns (..., 6)."""
    vector = np.asarray(axis_angle, dtype=np.float64)
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    axis = vector / np.maximum(angle, 1e-12)
    sine, cosine = np.sin(angle), np.cos(angle)
    columns = []
    for column in np.eye(3)[:2]:
        along = axis * (axis @ column)[..., None]
        columns.append(cosine * column + sine * np.cross(axis, column) + (1 - cosine) * along)
    return np.concatenate(columns, axis=-1)


def encode_state(
    eef_pos: ArrayLike,
    axis_angle: ArrayLike,
    gripper_qpos: ArrayLike,
    contract: Contract = LIBERO_VELOCITY,
) -> Float:
    """Hand position (..., 3) m, rotation (..., 3) rad, fingers (..., 2) m to (..., 128).

    Not normalised; unused slots are 0.
    """
    fingers = np.asarray(gripper_qpos, dtype=np.float64)
    opening = (fingers[..., :1] - fingers[..., 1:]) / contract.gripper_width_m
    values = [opening.clip(0.0, 1.0), np.asarray(eef_pos, np.float64), rotation_6d(axis_angle)]
    return _scatter(np.concatenate(values, axis=-1), contract.state_slots)


def normalise_state(
    state: Float, mean: ArrayLike, std: ArrayLike, contract: Contract = LIBERO_VELOCITY
) -> NDArray[np.float32]:
    """(..., 128) in units of the contract to z-scores (..., 128) float32, unused slots 0.

    A spread below the contract's floor counts as the floor: a slot that hardly ever
    moved in the data must not turn a millimetre in the evaluation into a huge score.
    """
    slots = list(contract.state_slots)
    spread = np.maximum(np.asarray(std, np.float64)[slots], contract.state_std_floor)
    scores = (state[..., slots] - np.asarray(mean, np.float64)[slots]) / spread
    return _scatter(scores, contract.state_slots).astype(np.float32)


def encode_action(actions: ArrayLike, contract: Contract = LIBERO_VELOCITY) -> Float:
    """LIBERO actions (..., 7) in [-1, 1], last one -1 = open, to (..., 128) float64."""
    values = np.asarray(actions, dtype=np.float64)
    opening = (1.0 - values[..., 6:]) / 2.0
    gathered = np.concatenate([opening, values[..., :6]], axis=-1)
    return _scatter(gathered, contract.action_slots)


def decode_action(unified: ArrayLike, contract: Contract = LIBERO_VELOCITY) -> NDArray[np.float32]:
    """Inverse of :func:`encode_action`, clipped to [-1, 1]: (..., 128) to (..., 7) float32."""
    values = np.asarray(unified)[..., list(contract.action_slots)]
    gripper = 1.0 - 2.0 * values[..., :1]
    return np.concatenate([values[..., 1:], gripper], axis=-1).clip(-1.0, 1.0).astype(np.float32)


def slot_mask(contract: Contract = LIBERO_VELOCITY) -> NDArray[np.float32]:
    """(128,) float32: 1 for every slot that states or actions use."""
    return _scatter(np.ones(len(contract.used_slots)), contract.used_slots).astype(np.float32)


def _scatter(values: Float, slots: tuple[int, ...]) -> Float:
    out = np.zeros((*values.shape[:-1], UNIFIED_SIZE))
    out[..., list(slots)] = values
    return out
