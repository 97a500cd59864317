"""Pictures of a data set for a person: first, middle and last of some episodes of each task.

They are turned as the world is, whatever the files hold. The simulator renders bottom row
first; copies turned by 180 degrees are upright but mirrored, as policies get to see them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from launcher.core.errors import RdtlError
from rdt.data.store import EpisodeStore

PIXELS = 128
GAP, GREY = 2, 127
QUALITY = 85
PER_TASK = 4
STRIPS = 24  # of a camera, when there are not more tasks
Pictures = NDArray[np.uint8]


def sheets(store: EpisodeStore) -> list[dict[str, Any]]:
    """Of each camera strips of three pictures: task, episode, steps, and a JPEG in base64.

    A picture that cannot be read leaves its error in place of the JPEG.
    """
    numbers = chosen(store)
    return [
        {"camera": camera, "strips": [_strip(store, camera, number) for number in numbers]}
        for camera in store.cameras
    ]


def chosen(store: EpisodeStore) -> list[int]:
    """Episodes to show: evenly over those of each task that have pictures."""
    first, beyond = np.searchsorted(store.sampled, [store.starts, store.ends])
    by_task: dict[str, list[int]] = {}
    for number in np.flatnonzero(beyond > first).tolist():
        by_task.setdefault(store.episodes[number].task, []).append(number)
    each = min(PER_TASK, max(1, STRIPS // max(1, len(by_task))))
    return [number for own in by_task.values() for number in _evenly(own, each)]


def upright(pictures: Pictures, rotation: str) -> Pictures:
    """Pictures (n, S, S, 3) as the camera saw the world, neither upside down nor mirrored."""
    return pictures[:, :, ::-1] if rotation == "180" else pictures[:, ::-1]


def _evenly(numbers: list[int], count: int) -> Iterator[int]:
    places = np.linspace(0, len(numbers) - 1, min(count, len(numbers))).round().astype(int)
    return (numbers[place] for place in places.tolist())


def _strip(store: EpisodeStore, camera: str, number: int) -> dict[str, Any]:
    episode, start = store.episodes[number], store.starts[number]
    first, beyond = np.searchsorted(store.sampled, [start, store.ends[number]])
    steps = store.sampled[[first, (first + beyond - 1) // 2, beyond - 1]]
    described = {
        "task": episode.task,
        "episode": episode.name,
        "steps": (steps - start).tolist(),
        "length": episode.length,
    }
    S = store.picture_size
    pictures = np.empty((3, S, S, 3), np.uint8)
    try:
        store.frames(camera, steps, pictures)
    except RdtlError as error:
        return described | {"jpeg": None, "error": f"{error.problem.what}: {error.problem.where}"}
    shown = _side_by_side(_smaller(upright(pictures, store.rotation)))
    data = simplejpeg.encode_jpeg(shown, QUALITY, "RGB")
    return described | {"jpeg": base64.b64encode(data).decode(), "error": None}


def _side_by_side(pictures: Pictures) -> Pictures:
    """(n, S, S, 3) as one row with grey gaps."""
    padded = np.pad(pictures, ((0, 0), (0, 0), (0, GAP), (0, 0)), constant_values=GREY)
    return np.ascontiguousarray(np.concatenate(list(padded), axis=1)[:, :-GAP])


def _smaller(pictures: Pictures) -> Pictures:
    """(n, S, S, 3) averaged in whole blocks down to at most ``PIXELS``."""
    n, S = pictures.shape[:2]
    block = -(-S // PIXELS)
    side = S // block
    blocks = pictures[:, : side * block, : side * block].reshape(n, side, block, side, block, 3)
    return blocks.mean(axis=(2, 4)).round().astype(np.uint8)
