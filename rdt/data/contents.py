"""What one walk over a data set finds: everything but the pictures themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from launcher.core.checks import Finding
from launcher.core.errors import RdtlError, RefusedError
from rdt.data.recording import CAMERAS, Conventions, Episode, Reader, Recording
from rdt.data.unified import RobotState


class Contents(NamedTuple):
    """``files``: path, size and mtime of each before the walk; ``actions`` (N, 7) and
    ``robot`` of arrays (N, ·) over all steps; ``sampled`` (n,) int64, flat numbers of the
    steps with a picture of their own; ``quaternion`` (N, 4) xyzw or None; ``places`` of
    each camera's pictures by episode; ``picture_size`` S in pixels, 0 without cameras."""

    files: list[dict[str, Any]]
    conventions: Conventions
    episodes: list[Episode]
    actions: NDArray[Any]
    robot: RobotState
    sampled: NDArray[np.int64]
    quaternion: NDArray[Any] | None
    places: dict[str, list[Any]]
    picture_size: int
    findings: list[Finding]


def walk(reader: Reader) -> Contents:
    """Read all numbers. Raises RefusedError RDTL-D034 for an episode that lacks a camera,
    RDTL-D036 for pictures of two sizes, and what the reader raises."""
    files = describe(reader.files())
    recordings = list(reader.recordings())
    lengths = [recording.episode.length for recording in recordings]
    starts = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
    numbered = zip(recordings, starts, strict=True)
    places = _by_camera(recordings)
    return Contents(
        files,
        reader.conventions,
        [recording.episode for recording in recordings],
        np.concatenate([recording.actions for recording in recordings]),
        RobotState(
            *(
                np.concatenate([np.asarray(recording.robot[part]) for recording in recordings])
                for part in range(len(RobotState._fields))
            )
        ),
        np.concatenate([recording.sampled + start for recording, start in numbered]),
        _quaternions(recordings),
        places,
        _common_size(reader, recordings, places),
        reader.findings(),
    )


def describe(paths: list[Path]) -> list[dict[str, Any]]:
    """Path, size in bytes and mtime in ns of each file, in the order given.

    Raises RdtlError RDTL-D014 for one that is missing.
    """
    try:
        found = [(path, path.stat()) for path in paths]
    except OSError as error:
        raise RdtlError(
            "RDTL-D014",
            "a file of the data set is missing",
            where=f"{error.filename}: {error.strerror}",
            why="the description of the data set names it",
            fix="copy the data set again, or check that its storage is mounted",
        ) from error
    return [
        {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        for path, stat in found
    ]


def changed(then: dict[str, Any], now: dict[str, Any]) -> RdtlError:
    """RDTL-D028 for a file that is not as it was found; each empty where there is no file."""
    before = f"{then['size']} bytes, {then['mtime_ns']} ns" if then else "not there"
    found = f"{now['size']} bytes, time {now['mtime_ns']} ns" if now else "no longer there"
    return RdtlError(
        "RDTL-D028",
        "a data file has changed since it was opened",
        where=f"{(then or now)['path']}: {found}; it was {before}",
        why="lengths and offsets that the run keeps are those of the older file",
        fix="let nothing write to the data of a run, and start a new run",
    )


def _quaternions(recordings: list[Recording]) -> NDArray[Any] | None:
    found = [r.quaternion for r in recordings if r.quaternion is not None]
    return np.concatenate(found) if len(found) == len(recordings) else None


def _by_camera(recordings: list[Recording]) -> dict[str, list[Any]]:
    """Places of the pictures by camera; an episode that lacks one refuses the set."""
    cameras = [c for c in CAMERAS if any(c in recording.pictures for recording in recordings)]
    for recording in recordings:
        episode = recording.episode
        for camera in cameras:
            if camera not in recording.pictures:
                raise RefusedError(
                    "RDTL-D034",
                    f"an episode has no pictures of the camera {camera}",
                    where=f"{episode.file}: {episode.name}; other episodes have them",
                    why="half of the samples would be black",
                    fix="repair the file, or choose other demonstrations",
                )
    return {camera: [recording.pictures[camera] for recording in recordings] for camera in cameras}


def _common_size(
    reader: Reader, recordings: list[Recording], places_by_camera: dict[str, list[Any]]
) -> int:
    seen: dict[tuple[int, int], Episode] = {}
    for places in places_by_camera.values():
        for recording, place in zip(recordings, places, strict=True):
            seen.setdefault(reader.picture_size(place), recording.episode)
    if all(height == width for height, width in seen) and len(seen) <= 1:
        return next(iter(seen), (0, 0))[0]
    shapes = ", ".join(f"{h} x {w} ({e.file}: {e.name})" for (h, w), e in seen.items())
    raise RefusedError(
        "RDTL-D036",
        "the pictures of the data set are not squares of one size",
        where=f"{reader.path}: {shapes}",
        why="a batch holds pictures of one size, and the simulator renders squares",
        fix="use a set whose pictures are alike, or list the parts as data sets of their own",
    )
