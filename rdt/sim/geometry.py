"""Ground-truth geometry of objects, read from the simulator."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

_CORNERS = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))


def collision_points(env: Any, name: str) -> Vector:
    """Points (k, 3) in metres, world frame, that span the collision shape of object ``name``.

    Mesh geoms contribute their vertices, primitives the corners of their bounding box.
    ``env`` is LIBERO's ``ControlEnv``; the object is one of its movable objects.
    """
    model = env.sim.model._model
    root = env.env.obj_body_id[name]
    owned = model.body_rootid[model.geom_bodyid] == root
    solid = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    return geom_points(env, np.flatnonzero(owned & solid))


def geom_points(env: Any, geoms: Iterable[int]) -> Vector:
    """Points (k, 3) in metres, world frame, that span the geoms with these numbers."""
    model, data = env.sim.model._model, env.sim.data._data
    clouds = [
        _local_points(model, geom) @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
        for geom in geoms
    ]
    return np.concatenate(clouds)


def _local_points(model: Any, geom: int) -> Vector:
    import mujoco

    if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        first = model.mesh_vertadr[mesh]
        vertices = model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
        return np.asarray(vertices, np.float64)
    centre, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
    return np.asarray(centre + _CORNERS * half, np.float64)


def surface_height(env: Any, without: str, above: Vector) -> float:
    """Height in metres of what lies straight below the point ``above`` (3,), world frame.

    The object ``without`` is looked through; -inf where there is nothing.
    """
    import mujoco

    hit = np.full(1, -1, np.int32)
    distance = mujoco.mj_ray(
        env.sim.model._model,
        env.sim.data._data,
        np.asarray(above, np.float64),
        np.array([0.0, 0.0, -1.0]),
        None,
        1,
        env.env.obj_body_id[without],
        hit,
    )
    return float(above[2] - distance) if hit[0] >= 0 else -np.inf


def rotation_z(angle: float) -> Vector:
    """Rotation matrix (3, 3) about world z by ``angle`` radians."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def rotation_vector(matrix: Vector) -> Vector:
    """Axis times angle (3,) in radians of a rotation matrix (3, 3)."""
    import mujoco

    quaternion, vector = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(matrix).reshape(9))
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector
