"""One shape for every data set: episodes, flat arrays over all steps, pictures by step number.

Three readers (:mod:`rdt.data.libero`, :mod:`rdt.data.rlds`, :mod:`rdt.data.lerobot`)
yield one recording after the other; :func:`stream` hands them on, so that statistics need
the memory of one episode, and :class:`EpisodeStore` keeps all numbers and reads pictures
when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.core.checks import Finding
from launcher.core.errors import RdtlError, RefusedError
from rdt.data.contents import Contents, walk
from rdt.data.finding import hdf5_files
from rdt.data.recording import RawPlaces, Reader, Recording, Wanted, require_joints
from rdt.data.selection import Selection
from rdt.spec.contract import Contract


class EpisodeStore:
    """A data set in memory but for its pictures.

    ``episodes``; ``ends`` (episodes,) int64, cumulative lengths; ``actions`` (N, 7);
    ``robot`` of arrays (N, ·), `joint_pos` all NaN when the set has none; ``sampled`` (n,)
    int64, flat numbers of the steps with a picture of their own; ``cameras`` that every
    episode has; ``picture_size`` S in pixels, 0 without cameras; ``conventions`` of the
    files, ``rotation`` among them; ``quaternion`` (N, 4) xyzw of the hand where recorded.
    """

    def __init__(self, reader: Reader, contents: Contents | None = None) -> None:
        self.path, self.kind = reader.path, reader.kind
        self.contents = contents or walk(reader)
        self.conventions = self.contents.conventions
        self.rotation = self.conventions.rotation
        self.episodes = self.contents.episodes
        self.ends = np.cumsum([episode.length for episode in self.episodes], dtype=np.int64)
        self.starts = self.ends - [episode.length for episode in self.episodes]
        self.actions, self.robot = self.contents.actions, self.contents.robot
        self.sampled, self.quaternion = self.contents.sampled, self.contents.quaternion
        self.picture_size = self.contents.picture_size
        self.cameras = tuple(self.contents.places)
        self._reader = reader

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def has_joints(self) -> bool:
        """Whether the joint positions are recorded."""
        return not np.isnan(np.asarray(self.robot.joint_pos)).all()

    def frames(self, camera: str, steps: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """:meth:`pictures` of one camera."""
        self.pictures(steps, {camera: out})

    def pictures(self, steps: NDArray[np.int64], out: Mapping[str, NDArray[np.uint8]]) -> None:
        """Fill ``out`` by camera, each (n, S, S, 3) uint8, with those of the flat ``steps`` (n,).

        As they lie in the file (`rotation`). Each ``out[camera][i]`` must be C-contiguous.
        Runs of following steps are read at once, and everything is announced to the disk
        before anything is read: cold reads want large batches. Raises RdtlError RDTL-D013,
        D030 or D032 naming the file, RDTL-D034 for a camera that the set lacks.
        """
        numbers = np.searchsorted(self.ends, steps, "right")
        rows = steps - self.starts[numbers]
        breaks = (np.diff(numbers) != 0) | (np.diff(rows) != 1)
        bounds = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(steps)] if len(steps) else [0]
        runs = list(
            zip(
                numbers[bounds[:-1]].tolist(),
                rows[bounds[:-1]].tolist(),
                pairwise(bounds),
                strict=True,
            )
        )
        wanted: list[Wanted] = []
        for camera, pictures in out.items():
            if camera not in self.contents.places:
                raise self._no_camera(camera)
            places = self.contents.places[camera]
            wanted += [(places[number], row, pictures[i:j]) for number, row, (i, j) in runs]
        self._reader.read(wanted)

    def raw(self, cameras: Sequence[str]) -> RawPlaces | None:
        """Where the pictures of ``cameras`` lie, if each lies raw in its file."""
        return self._reader.raw([self.contents.places[camera] for camera in cameras])

    def source(self) -> dict[str, Any]:
        """What was read: kind, path, and size and mtime of every file then, as JSON."""
        return {"kind": self.kind, "path": str(self.path), "files": self.contents.files}

    def findings(self) -> list[Finding]:
        """What is readable but slow or suspicious, e.g. pictures chunked across frames."""
        return self.contents.findings

    def require(self, contract: Contract) -> None:
        """Refuse (RDTL-D034) a contract whose cameras or joints the set does not have."""
        for camera in contract.cameras:
            if camera and camera not in self.contents.places:
                raise self._no_camera(camera)
        require_joints(self.robot, contract, str(self.path))

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

    def _no_camera(self, camera: str) -> RdtlError:
        return RefusedError(
            "RDTL-D034",
            f"the data set has no pictures of the camera {camera}",
            where=f"{self.path}: cameras {', '.join(self.cameras) or 'none'}",
            why="the policy would be trained without a picture that it gets in the evaluation",
            fix="choose a contract with the cameras that are there, or another copy of the data",
        )


def open_store(
    path: Path,
    *,
    tasks: Sequence[str] = (),
    demos: Sequence[int | str] = (),
    at_most: int | None = None,
    gripper_open: int = -1,
    alignment: str | None = None,
) -> EpisodeStore:
    """Read the data set at ``path``, whatever of the three layouts lies there.

    ``tasks`` (names or instructions) and ``demos`` (names, or numbers counted within each
    task) choose; none means all; ``at_most`` so many of each task. ``gripper_open`` and
    ``alignment`` declare what copies differ in. Raises UsageError RDTL-D033 for what is not
    there, and RdtlError naming file and offset or data set for what cannot be read.
    """
    chosen = Selection(tasks, demos, at_most)
    return EpisodeStore(find_reader(path, chosen, gripper_open, alignment))


def stream(path: Path, **options: Any) -> Iterator[Recording]:
    """The episodes of the set at ``path``, one in memory at a time; options of `open_store`."""
    chosen = (options.pop("tasks", ()), options.pop("demos", ()), options.pop("at_most", None))
    selection = Selection(*chosen)
    yield from find_reader(path, selection, **options).recordings()


def find_reader(
    path: Path, selection: Selection, gripper_open: int = -1, alignment: str | None = None
) -> Reader:
    """The reader for what lies at ``path``.

    Raises RdtlError RDTL-D014 when there is nothing, RDTL-D023 when the set lies one
    level up or down, with the path to use.
    """
    # Imported here: each reader needs libraries that the others do without.
    if (path / "dataset_info.json").is_file():
        from rdt.data.rlds import RldsShards

        return RldsShards(path, selection, gripper_open, alignment)
    if (path / "meta/info.json").is_file():
        from rdt.data.lerobot import LeRobotFolder

        return LeRobotFolder(path, selection, gripper_open, alignment)
    if hdf5_files(path):
        from rdt.data.libero import LiberoFiles

        return LiberoFiles(path, selection, gripper_open, alignment)
    raise _nothing_here(path)


def _nothing_here(path: Path) -> RdtlError:
    marks = ("dataset_info.json", "meta/info.json")
    inside = [found for mark in marks for found in path.glob(f"*/{mark}")]
    inside += [found for mark in marks for found in path.glob(f"*/*/{mark}")]
    above = [path.parent / mark for mark in marks if (path.parent / mark).is_file()]
    roots = sorted(
        {found.parent.parent if found.parent.name == "meta" else found.parent for found in inside}
        | {path.parent for _ in above}
    )
    if roots:
        return RdtlError(
            "RDTL-D023",
            "this folder is not the data set itself",
            where=f"{path}: it lies in {', '.join(map(str, roots[:5]))}",
            why="dataset_info.json (RLDS) or meta/info.json (LeRobot) marks a data set",
            fix=f"name that folder, e.g. {roots[0]}",
        )
    return RdtlError(
        "RDTL-D014",
        "there is no demonstration file" if not path.exists() else "there is no data set here",
        where=str(path),
        why="looked for *.hdf5 (LIBERO), dataset_info.json (RLDS) and meta/info.json (LeRobot)",
        fix="check the path and that its storage is mounted",
    )
