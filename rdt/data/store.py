"""One shape for every data set: episodes, flat arrays over all steps, pictures by step number.

What differs between copies of the same demonstrations is settled when a set is read
and named in :class:`Conventions`: row t always is what is seen and felt before action
t, and -1 always opens the gripper. Pictures stay as they lie in the file; `rotation`
says how. Readers (:mod:`rdt.data.libero`, :mod:`rdt.data.rlds`,
:mod:`rdt.data.lerobot`) yield one :class:`Recording` after the other, so that what
needs no pictures, like statistics, needs the memory of one episode.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from launcher.core.checks import Finding
from launcher.core.errors import RdtlError, RefusedError
from rdt.data.unified import RobotState
from rdt.spec.contract import Contract

CAMERAS = ("agentview", "eye_in_hand")


@dataclass(frozen=True)
class Conventions:
    """What a set's own numbers mean, where copies differ.

    ``gripper_open``: the sign of actions[:, 6] that opens the fingers. ``alignment``:
    whether a row holds what was observed "before" or "after" its action. ``rotation`` of
    the pictures: "raw" (bottom-up, as the simulator renders) or "180".
    """

    gripper_open: int = -1
    alignment: str = "before"
    rotation: str = "raw"


@dataclass(frozen=True)
class Episode:
    """One demonstration; ``length`` in control steps, after alignment."""

    file: Path
    name: str
    task: str
    instruction: str
    length: int


class Recording(NamedTuple):
    """One episode with its numbers, aligned and with -1 = open.

    ``actions`` (T, 7) and ``robot`` (T, ·) in the file's own float type, ``sampled`` (n,)
    int64 rows with a picture of their own, ``pictures``: where each camera's lie, a thing
    that only its reader understands.
    """

    episode: Episode
    actions: NDArray[Any]
    robot: RobotState
    sampled: NDArray[np.int64]
    pictures: dict[str, Any]


Wanted = tuple[Any, int, int]
"""(place of an episode's pictures, first row, how many rows)."""


class Reader(Protocol):
    """One layout on disk. Making one reads descriptions only; all else raises RdtlError."""

    path: Path
    kind: str
    conventions: Conventions

    def recordings(self) -> Iterator[Recording]:
        """Every chosen episode in the set's order."""
        ...

    def picture_size(self, place: Any) -> tuple[int, int]:
        """Height and width of the pictures at ``place``."""
        ...

    def read(self, wanted: Sequence[Wanted], out: NDArray[np.uint8]) -> None:
        """Fill ``out`` (n, S, S, 3) with the rows of ``wanted``, one after the other."""
        ...

    def files(self) -> list[Path]:
        """Every file that the set consists of."""
        ...

    def findings(self) -> list[Finding]:
        """What is readable but slow or suspicious; complete after `recordings`."""
        ...


class EpisodeStore:
    """A data set in memory but for its pictures.

    ``episodes``; ``ends`` (episodes,) int64, cumulative lengths; ``actions`` (N, 7);
    ``robot`` of arrays (N, ·), `joint_pos` all NaN when the set has none; ``sampled`` (n,)
    int64, flat numbers of the steps with a picture of their own; ``cameras`` that every
    episode has; ``picture_size`` S in pixels, 0 without cameras; ``conventions`` of the
    files, ``rotation`` among them.
    """

    def __init__(self, reader: Reader) -> None:
        self.path, self.kind, self.conventions = reader.path, reader.kind, reader.conventions
        self.rotation = reader.conventions.rotation
        self._reader = reader
        recordings = list(reader.recordings())
        self.episodes = [recording.episode for recording in recordings]
        self.ends = np.cumsum([episode.length for episode in self.episodes], dtype=np.int64)
        self.starts = self.ends - [episode.length for episode in self.episodes]
        self.actions = np.concatenate([recording.actions for recording in recordings])
        self.robot = RobotState(
            *(
                np.concatenate([np.asarray(recording.robot[part]) for recording in recordings])
                for part in range(len(RobotState._fields))
            )
        )
        self.sampled = np.concatenate(
            [r.sampled + start for r, start in zip(recordings, self.starts, strict=True)]
        )
        self._places = _by_camera(recordings)
        self.cameras = tuple(self._places)
        self.picture_size = self._common_size()

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def has_joints(self) -> bool:
        """Whether the joint positions are recorded."""
        return not np.isnan(np.asarray(self.robot.joint_pos)).all()

    def frames(self, camera: str, steps: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Fill ``out`` (n, S, S, 3) uint8 with the pictures of the flat ``steps`` (n,).

        As they lie in the file (`rotation`). Each ``out[i]`` must be C-contiguous; runs of
        following steps are read at once. Raises RdtlError RDTL-D013, D030 or D032 naming
        the file, RDTL-D034 for a camera that the set lacks.
        """
        if camera not in self._places:
            raise self._no_camera(camera)
        numbers = np.searchsorted(self.ends, steps, "right")
        rows = steps - self.starts[numbers]
        breaks = (np.diff(numbers) != 0) | (np.diff(rows) != 1)
        firsts = [0, *(np.flatnonzero(breaks) + 1).tolist()] if len(steps) else []
        lengths = np.diff([*firsts, len(steps)]).tolist()
        places = self._places[camera]
        chosen = zip(numbers[firsts].tolist(), rows[firsts].tolist(), lengths, strict=True)
        self._reader.read([(places[number], row, n) for number, row, n in chosen], out)

    def source(self) -> dict[str, Any]:
        """What the data came from: kind, and size and mtime of every file, as JSON."""
        return {"kind": self.kind, "path": str(self.path), "files": describe(self._reader.files())}

    def findings(self) -> list[Finding]:
        """What is readable but slow or suspicious, e.g. pictures chunked across frames."""
        return self._reader.findings()

    def require(self, contract: Contract) -> None:
        """Refuse (RDTL-D034) a contract whose cameras or joints the set does not have."""
        for camera in contract.cameras:
            if camera and camera not in self._places:
                raise self._no_camera(camera)
        if any(part.source == "joint_pos" for part in contract.state) and not self.has_joints:
            raise RefusedError(
                "RDTL-D034",
                "the data set has no joint positions",
                where=f"{self.path}; contract {contract.name}, state {contract.state[0].name}",
                why="the contract fills slots of the state with them",
                fix="choose a contract without joints, or a copy of the data that has them",
            )

    def unfinite(self) -> list[str]:
        """Places of NaN and infinity among actions and robot state, one line an episode."""
        arrays = {"actions": self.actions, **self.robot._asdict()}
        if not self.has_joints:
            del arrays["joint_pos"]
        lines = []
        for name, values in arrays.items():
            bad = np.flatnonzero(~np.isfinite(np.asarray(values)).all(axis=1))
            for number in np.unique(np.searchsorted(self.ends, bad, "right")).tolist():
                episode, start = self.episodes[number], self.starts[number]
                first = int(bad[np.searchsorted(bad, start)] - start)
                lines.append(f"{episode.file}: {episode.name}, {name}, step {first}")
        return lines

    def _common_size(self) -> int:
        seen: dict[tuple[int, int], Episode] = {}
        for places in self._places.values():
            for episode, place in zip(self.episodes, places, strict=True):
                seen.setdefault(self._reader.picture_size(place), episode)
        if all(height == width for height, width in seen) and len(seen) <= 1:
            return next(iter(seen), (0, 0))[0]
        shapes = ", ".join(f"{h} x {w} ({e.file}: {e.name})" for (h, w), e in seen.items())
        raise RefusedError(
            "RDTL-D036",
            "the pictures of the data set are not squares of one size",
            where=f"{self.path}: {shapes}",
            why="a batch holds pictures of one size, and the simulator renders squares",
            fix="use a set whose pictures are alike, or list the parts as data sets of their own",
        )

    def _no_camera(self, camera: str) -> RdtlError:
        return RefusedError(
            "RDTL-D034",
            f"the data set has no pictures of the camera {camera}",
            where=f"{self.path}: cameras {', '.join(self.cameras) or 'none'}",
            why="the policy would be trained without a picture that it gets in the evaluation",
            fix="choose a contract with the cameras that are there, or another copy of the data",
        )


def _by_camera(recordings: list[Recording]) -> dict[str, list[Any]]:
    """Places of the pictures by camera; an episode that lacks one refuses the set."""
    cameras = [c for c in CAMERAS if any(c in recording.pictures for recording in recordings)]
    for episode, *_, pictures in recordings:
        for camera in cameras:
            if camera not in pictures:
                raise RefusedError(
                    "RDTL-D034",
                    f"an episode has no pictures of the camera {camera}",
                    where=f"{episode.file}: {episode.name}; other episodes have them",
                    why="half of the samples would be black",
                    fix="repair the file, or choose other demonstrations",
                )
    return {camera: [recording.pictures[camera] for recording in recordings] for camera in cameras}


def describe(paths: list[Path]) -> list[dict[str, Any]]:
    """Path, size in bytes and mtime in ns of each file, in the order given."""
    found = [(path, path.stat()) for path in paths]
    return [
        {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        for path, stat in found
    ]


def open_store(
    path: Path,
    *,
    tasks: Sequence[str] = (),
    demos: Sequence[int | str] = (),
    gripper_open: int = -1,
    alignment: str | None = None,
) -> EpisodeStore:
    """Read the data set at ``path``, whatever of the three layouts lies there.

    ``tasks`` (names or instructions) and ``demos`` (names, or numbers counted within each
    task) choose; none means all. ``gripper_open`` and ``alignment`` declare what copies
    differ in. Raises UsageError RDTL-D033 for what is not there, and RdtlError naming file
    and offset or data set for what cannot be read.
    """
    return EpisodeStore(find_reader(path, Selection(tasks, demos), gripper_open, alignment))
