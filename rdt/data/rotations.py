"""Rotations in the forms that data sets and policies use. Arrays may have leading axes (...).

The 6-d form is the first two columns of the rotation matrix, one after the other.
Euler angles are roll, pitch, yaw about the fixed axes x, y, z: R = Rz · Ry · Rx.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


def quat_to_axis_angle(quat: ArrayLike) -> Float:
    """Quaternion (4,) xyzw to axis times angle (3,) in rad, angles 0 … 2π as in `ee_ori`.

    The arc tangent keeps small angles exact, where the widely copied formula with the
    arc cosine is off by up to a twentieth of a radian (and clips its argument in place).
    What is no rotation, (0, 0, 0, 0) or a number that is not finite, gives NaN.
    """
    quaternion = np.asarray(quat, dtype=np.float64)
    if not np.isfinite(quaternion).all() or not quaternion.any():
        return np.full(3, np.nan)
    sine = math.hypot(*quaternion[:3])  # squares of tiny parts would underflow
    if sine == 0.0:
        return np.zeros(3)
    return quaternion[:3] / sine * (2.0 * math.atan2(sine, quaternion[3]))


def axis_angle_to_6d(axis_angle: ArrayLike) -> Float:
    """Axis times angle (..., 3) in rad to (..., 6)."""
    vector = np.asarray(axis_angle, dtype=np.float64)
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    axis = vector / np.maximum(angle, 1e-12)
    sine, cosine = np.sin(angle), np.cos(angle)
    columns = []
    for column in np.eye(3)[:2]:
        along = axis * (axis @ column)[..., None]
        columns.append(cosine * column + sine * np.cross(axis, column) + (1 - cosine) * along)
    return np.concatenate(columns, axis=-1)


def euler_to_6d(euler: ArrayLike) -> Float:
    """Roll, pitch, yaw (..., 3) in rad to (..., 6)."""
    angles = np.asarray(euler, dtype=np.float64)
    (cr, cp, cy), (sr, sp, sy) = (
        np.moveaxis(function(angles), -1, 0) for function in (np.cos, np.sin)
    )
    first = (cy * cp, sy * cp, -sp)
    second = (cy * sp * sr - sy * cr, sy * sp * sr + cy * cr, cp * sr)
    return np.stack([*first, *second], axis=-1)


def euler_of_6d(columns: ArrayLike) -> Float:
    """(..., 6) to roll, pitch, yaw (..., 3) in rad, pitch within ±π/2.

    The columns need not be orthonormal (a network said them): Gram–Schmidt makes them so.
    """
    values = np.asarray(columns, dtype=np.float64)
    x = _unit(values[..., :3])
    z = _unit(np.cross(x, values[..., 3:]))
    y = np.cross(z, x)
    pitch = np.arctan2(-x[..., 2], np.hypot(x[..., 0], x[..., 1]))
    roll, yaw = np.arctan2(y[..., 2], z[..., 2]), np.arctan2(x[..., 1], x[..., 0])
    return np.stack([roll, pitch, yaw], axis=-1)


def turns(columns: ArrayLike) -> Float:
    """From each of (T, 6) to the next, (T - 1, 3): sine of the angle times axis, in the frame
    in which the columns are given."""
    values = np.asarray(columns, dtype=np.float64)
    x, y = values[:, :3], values[:, 3:]
    matrix = np.stack([x, y, np.cross(x, y)], axis=-1)
    step = matrix[1:] @ np.swapaxes(matrix[:-1], 1, 2)
    skew = (step - np.swapaxes(step, 1, 2)) / 2
    return np.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], axis=-1)


def _unit(vector: Float) -> Float:
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-12)
