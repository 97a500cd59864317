"""What our own evaluation sends to our own server: the observation as the policy knows it.

Pictures stay raw and unresized, those of the control step before are the true ones, and
episode and query come along. So the answer is that of a policy in the same process,
whoever else is asking: bit for bit with fixed batches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RefusedError
from rdt.policy.policy import Observation

PROTOCOL = "rdtl/1"
KEY = "rdtl"
NUMBERS = {"eef_pos": 3, "eef_quat": 4, "gripper_qpos": 2, "joint_pos": 7}


class Asked(NamedTuple):
    """One query: what is seen, in which episode, how many queries the episode had before."""

    observation: Observation
    episode: str
    query: int


def to_wire(asked: Asked) -> dict[str, Any]:
    """The message of a query."""
    return {
        KEY: PROTOCOL,
        **vars(asked.observation),
        "episode": asked.episode,
        "query": asked.query,
    }


def from_wire(message: dict[Any, Any]) -> Asked:
    """Inverse of :func:`to_wire`.

    Raises RefusedError RDTL-E056 for a field that is missing or of another type or shape.
    """
    if message.get(KEY) != PROTOCOL:
        raise refused(KEY, message.get(KEY), PROTOCOL)
    query = whole(message, "query")
    numbers = {name: vector(message, name, size) for name, size in NUMBERS.items()}
    observation = Observation(
        pictures=_pictures(message, "pictures"),
        previous=None if message.get("previous") is None else _pictures(message, "previous"),
        instruction=text(message, "instruction"),
        **numbers,
    )
    return Asked(observation, text(message, "episode"), query)


def text(message: dict[Any, Any], key: str) -> str:
    """The text under ``key``; RefusedError RDTL-E056 when there is none."""
    value = message.get(key)
    if not isinstance(value, str):
        raise refused(key, value, "a text")
    return value


def whole(message: dict[Any, Any], key: str) -> int:
    """The number under ``key``, whole and not negative; else RefusedError RDTL-E056."""
    value = message.get(key)
    if type(value) is not int or value < 0:
        raise refused(key, value, "a whole number from 0")
    return value


def vector(message: dict[Any, Any], key: str, size: int) -> NDArray[np.float64]:
    """Numbers (size,) under ``key`` as float64; else RefusedError RDTL-E056."""
    value = message.get(key)
    if not isinstance(value, np.ndarray) or value.shape != (size,) or value.dtype.kind not in "fiu":
        raise refused(key, value, f"{size} numbers")
    return value.astype(np.float64)


def _pictures(message: dict[Any, Any], key: str) -> dict[str, NDArray[np.uint8]]:
    value = message.get(key)
    pictures = value if isinstance(value, dict) else {None: value}
    for name, picture in pictures.items():
        if not isinstance(name, str) or not isinstance(picture, np.ndarray):
            raise refused(key, value, "pictures by camera")
    return pictures  # their sizes and types are the policy's own business


def refused(key: str, value: object, expected: str) -> RefusedError:
    """RDTL-E056 for a field of a message."""
    shape = f" {value.shape}" if isinstance(value, np.ndarray) else ""
    found = "missing" if value is None else f"{type(value).__name__}{shape}"
    return RefusedError(
        "RDTL-E056",
        "a policy server cannot read this request",
        where=f"message[{key!r}]: {found}, expected {expected}",
        why="the policy would be shown something else than the robot sees",
        fix="send what the server's metadata asks for (docs/evaluation.md, policy servers)",
    )
