"""LIBERO as openpi's clients and servers write it, in both directions.

The wire holds two upright pictures, eight numbers of the robot and a sentence: no
history, no episodes, no joints. What a server must remember in their place is here too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rdt.data import rotations
from rdt.policy.policy import Observation
from rdt.serve.exact import Asked, refused, text, vector

Picture = NDArray[np.uint8]

PICTURES = {"agentview": "observation/image", "eye_in_hand": "observation/wrist_image"}
STATE, PROMPT, ACTIONS = "observation/state", "prompt", "actions"
JOINTS, EPISODE = "observation/joint_position", "episode"
"""Two keys more than openpi has, for clients that can: joints (7,) rad, a name per episode."""
SIZE = 224
CONVENTIONS = {
    "camera_rotation": "180",
    "gripper": "-1 = open, +1 = close",
    "state": "eef_pos (3) m, axis-angle (3) rad, gripper_qpos (2) m",
}
"""Of everything that is sent and answered; a server that declares others is refused."""
SENT = {"keys": [*PICTURES.values(), STATE, PROMPT], "picture_size": SIZE, **CONVENTIONS}


def to_wire(observation: Observation) -> dict[str, Any]:
    """The request that openpi's LIBERO example sends for an observation with pictures."""
    seen = {key: sized(turned(observation.pictures[name])) for name, key in PICTURES.items()}
    angles = rotations.quat_to_axis_angle(observation.eef_quat)
    state = np.concatenate([observation.eef_pos, angles, observation.gripper_qpos])
    return {**seen, STATE: state, PROMPT: observation.instruction}


def turned(picture: Picture) -> Picture:
    """Raw picture (h, w, 3) of LIBERO to the way in which it is sent, or back."""
    return np.ascontiguousarray(picture[::-1, ::-1])


def sized(picture: Picture, size: int = SIZE) -> Picture:
    """(h, w, 3) uint8 to (size, size, 3): bilinear, the sides' ratio kept, padded with black."""
    height, width = picture.shape[:2]
    if (height, width) == (size, size):
        return picture
    ratio = max(width, height) / size
    inner = Image.fromarray(picture).resize(
        (int(width / ratio), int(height / ratio)), Image.Resampling.BILINEAR
    )
    out = Image.new("RGB", (size, size))
    out.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
    return np.asarray(out)


class Session:
    """What one client has shown; ``eats_joints`` says whether the policy needs joint angles.

    An episode begins with the connection, with another prompt and with another name under
    EPISODE. Within it the pictures of the last query stand for those of the last control
    step: that is all that this wire can have.
    """

    def __init__(self, name: str, eats_joints: bool) -> None:
        self._name, self._eats_joints = name, eats_joints
        self._episodes = 0
        self._told: tuple[str, str] | None = None
        self._query = 0
        self._previous: dict[str, Picture] | None = None

    def read(self, message: dict[Any, Any]) -> Asked:
        """The query in ``message``; RefusedError RDTL-E056 for one that lacks something."""
        told = (text(message, PROMPT), str(message.get(EPISODE, "")))
        if told != self._told:
            self._told, self._query, self._previous = told, 0, None
            self._episodes += 1
        state = vector(message, STATE, 8)
        joints = vector(message, JOINTS, 7) if self._eats_joints else np.full(7, np.nan)
        observation = Observation(
            pictures={name: _picture(message, key) for name, key in PICTURES.items()},
            eef_pos=state[:3],
            eef_quat=_quaternion(state[3:6]),
            gripper_qpos=state[6:],
            joint_pos=joints,
            instruction=told[0],
            previous=self._previous,
        )
        return Asked(observation, told[1] or f"{self._name}-{self._episodes}", self._query)

    def answered(self, asked: Asked) -> None:
        """Note that the client got its answer."""
        self._query, self._previous = asked.query + 1, asked.observation.pictures


def _picture(message: dict[Any, Any], key: str) -> Picture:
    """Raw (h, w, 3) uint8 of an upright one, which may be channels first or in 0 … 1."""
    value = message.get(key)
    if not isinstance(value, np.ndarray) or value.ndim != 3 or value.dtype.kind not in "uf":
        raise refused(key, value, "a picture (h, w, 3), uint8 or 0 … 1")
    if value.dtype.kind == "f":
        if not (value.min() >= 0 and value.max() <= 1):
            raise refused(key, value, "numbers in 0 … 1, or uint8")
        value = (255 * value).astype(np.uint8)
    if value.shape[0] == 3:
        value = value.transpose(1, 2, 0)
    return turned(value)


def _quaternion(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axis times angle (3,) to xyzw (4,)."""
    angle = float(np.linalg.norm(vector))
    sine = np.sin(angle / 2) / angle if angle else 0.5
    return np.append(vector * sine, np.cos(angle / 2))
