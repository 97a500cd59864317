"""Pictures that lie otherwise than their layout says are told from the pictures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from launcher.core.checks import Finding
from rdt.data import checks, orientation
from rdt.data.store import open_store
from tests.data import writers
from tests.data.writers import Demo

Turn = Callable[[NDArray[Any]], NDArray[Any]]
TURNS: dict[str, Turn] = {
    "180": lambda p: p[:, ::-1, ::-1],
    "upright": lambda p: p[:, ::-1],
    "raw, mirrored": lambda p: p[:, :, ::-1],
    "on its left side": lambda p: np.rot90(p, 1, (1, 2)),
}


def look(path: Path) -> Finding:
    (found,) = checks.lie_as_declared(open_store(path))
    return found


def turned(demos: list[Demo], turn: Turn) -> list[Demo]:
    """Their first steps with pictures that lie otherwise."""
    short = [demo.part(40) for demo in demos]
    for demo in short:
        for name in ("obs/agentview_rgb", "obs/eye_in_hand_rgb"):
            demo.arrays[name] = np.ascontiguousarray(turn(demo.arrays[name]))
    return short


@pytest.mark.parametrize("lies", TURNS)
def test_pictures_of_a_file_that_were_turned(lies: str, collected: Path, tmp_path: Path) -> None:
    path = tmp_path / collected.name
    shutil.copy(collected, path)
    assert look(path).severity == "ok"
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            pictures = demo["obs/agentview_rgb"]
            pictures[...] = TURNS[lies](pictures[:])
    found = look(path)
    assert (found.code, found.severity) == ("RDTL-E007", "error")
    assert found.what == f"orientation of the pictures: declared raw, the data say {lies}"


@pytest.mark.parametrize(
    ("lies", "turn"),
    [
        ("raw", TURNS["180"]),  # not turned at all: the writers turn once more
        ("upright", TURNS["raw, mirrored"]),
        ("raw, mirrored", TURNS["upright"]),
    ],
)
@pytest.mark.parametrize("layout", ["rlds", "lerobot2", "lerobot3"])
def test_copies_that_should_be_turned_by_180_degrees(
    layout: str, lies: str, turn: Turn, demos: list[Demo], tmp_path: Path
) -> None:
    path = tmp_path / "set"
    if layout == "rlds":
        writers.write_rlds([writers.rlds_episode(demo) for demo in turned(demos, turn)], path)
    else:
        getattr(writers, f"write_{layout}")(turned(demos, turn), path)
    found = look(path)
    assert (found.code, found.severity) == ("RDTL-E007", "error")
    assert found.what == f"orientation of the pictures: declared 180, the data say {lies}"


@pytest.mark.parametrize("layout", ["collected", "rlds", "lerobot2", "lerobot3"])
def test_right_ones_pass(layout: str, request: pytest.FixtureRequest) -> None:
    assert look(request.getfixturevalue(layout)).severity == "ok"


@pytest.mark.parametrize("way", orientation.WAYS)
def test_a_scene_without_a_portrait_is_never_told_wrongly(way: str) -> None:
    """Each portrait against all others: right where others are like it, else unclear."""
    scenes = orientation.portraits()
    told = []
    for number in range(len(scenes)):
        others = np.delete(scenes, number, axis=0)
        lies = orientation.WAYS[way](scenes[number : number + 1])
        told.append(orientation.told(orientation.likeness(lies, others)))
    assert set(told) <= {way, "unclear"}
    assert told.count(way) >= 16
    assert orientation.told(orientation.likeness(orientation.WAYS[way](scenes), scenes)) == way


def test_noise_and_other_places_tell_nothing(collected: Path, tmp_path: Path) -> None:
    path = tmp_path / collected.name
    shutil.copy(collected, path)
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            pictures = demo["obs/agentview_rgb"]
            pictures[...] = np.random.default_rng(0).integers(0, 256, pictures.shape, np.uint8)
    found = look(path)
    assert (found.code, found.severity) == ("RDTL-E007", "info")
    assert "do not tell" in found.what


def test_small_pictures_are_shrunk_by_their_mean() -> None:
    """Also where the size is no multiple."""
    for size in (32, 84, 224, 256):
        ramp = np.broadcast_to(
            np.arange(size)[None, :, None, None] / size * 200, (1, size, size, 3)
        )
        small = orientation.shrunk(ramp.astype(np.uint8))
        assert small.shape == (1, orientation.SIDE, orientation.SIDE)
        assert np.all(np.diff(small[0, :, 0]) > 0)
        assert np.all(np.abs(small[0, :, 0] - np.arange(orientation.SIDE) * 200 / 32) < 8)
