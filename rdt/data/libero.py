"""LIBERO's HDF5 files: upstream's, the regenerated ones without no-ops, and ours.

One file per task, `/data/demo_N` per demonstration. Contiguous pictures are copied from
a memory map at their offset; chunked and compressed ones go through h5py, and a finding
names those whose chunks cut across pictures. What a file says of itself is read by
:mod:`rdt.data.libero_attributes`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from launcher.core.checks import Finding
from launcher.core.errors import RdtlError, RefusedError
from rdt.data import hdf5, widths
from rdt.data.finding import hdf5_files
from rdt.data.libero_attributes import (
    alignment_of,
    episode_names,
    instruction_of,
    mixed_alignments,
    require,
    task_name,
)
from rdt.data.ranges import ByteFile, Disk
from rdt.data.recording import Conventions, Episode, RawPlaces, Recording, Wanted, aligned
from rdt.data.selection import Selection
from rdt.data.unified import RobotState

CAMERA_DATASETS = {"agentview": "obs/agentview_rgb", "eye_in_hand": "obs/eye_in_hand_rgb"}
ROBOT_DATASETS = {
    "obs/ee_pos": 3,
    "obs/ee_ori": 3,
    "obs/gripper_states": 2,
    "obs/joint_states": 7,
}


class Place(NamedTuple):
    """Pictures of one camera in one episode; ``offset`` in bytes, None: through h5py."""

    file: int
    dataset: str
    offset: int | None
    shape: tuple[int, ...]


class LiberoFiles:
    """Reader of one file, a folder of files, or a folder of such folders."""

    kind = "libero-hdf5"
    place = Place

    def __init__(
        self, path: Path, selection: Selection, gripper_open: int, alignment: str | None
    ) -> None:
        self.path = path
        self._selection, self._gripper_open, self._declared = selection, gripper_open, alignment
        self._paths = hdf5_files(path)
        self._handles: dict[int, h5py.File] = {}
        self._disk = Disk()
        self._findings: dict[Path, Finding] = {}
        self._bytes = [ByteFile(file) for file in self._paths]

    @cached_property
    def conventions(self) -> Conventions:
        """As every file says of itself, which opens them all; RDTL-D027 when they differ."""
        found = {file: alignment_of(file, self._declared) for file in self._paths}
        if len(set(found.values())) > 1:
            raise mixed_alignments(self.path, found)
        return Conventions(self._gripper_open, next(iter(found.values())), "raw")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": {}}

    def files(self) -> list[Path]:
        """The HDF5 files in reading order."""
        return self._paths

    def findings(self) -> list[Finding]:
        """Files whose pictures are chunked across pictures (RDTL-D035); what is left out."""
        return [*self._findings.values(), *self._selection.findings(self.path)]

    def recordings(self) -> Iterator[Recording]:
        """Episodes in the order of file names and demonstration numbers."""
        self._selection.start()
        for number, path in enumerate(self._paths):
            with hdf5.open_file(path) as file, hdf5.coded(path):
                group = require(file, "data", path)
                task, instruction = task_name(group, path), instruction_of(group, path)
                for name in episode_names(group, path):
                    row = int(name.removeprefix("demo_"))
                    if self._selection.wants(task, instruction, name, row):
                        yield self._recording(number, group[name], (name, task, instruction))
        self._selection.finish(self.path)

    def _recording(self, file: int, demo: h5py.Group, names: tuple[str, str, str]) -> Recording:
        path = self._paths[file]
        arrays = {name: _array(demo, name, path) for name in ("actions", *ROBOT_DATASETS)}
        pictures = {
            camera: _dataset(demo, name, path)
            for camera, name in CAMERA_DATASETS.items()
            if name in demo
        }
        lengths = {name: len(values) for name, values in arrays.items()}
        lengths |= {dataset.name: dataset.shape[0] for dataset in pictures.values()}
        if "num_samples" in demo.attrs:
            lengths["attribute num_samples"] = int(demo.attrs["num_samples"])
        robot = RobotState(*(arrays[name] for name in ROBOT_DATASETS))
        where = f"{path}: {demo.name}"
        actions, robot = aligned(arrays["actions"], robot, self.conventions, lengths, where)
        T = len(actions)
        return Recording(
            Episode(path, names[0], names[1], names[2], T),
            actions,
            robot,
            _sampled(demo, T),
            {camera: self._place(file, dataset) for camera, dataset in pictures.items()},
            demo["robot_states"][:T, 5:9] if "robot_states" in demo else None,
        )

    def _place(self, file: int, dataset: h5py.Dataset) -> Place:
        path = self._paths[file]
        if dataset.dtype != np.uint8 or dataset.ndim != 4 or dataset.shape[3] != 3:
            raise RdtlError(
                "RDTL-D032",
                "a data set of pictures holds something else",
                where=f"{path}: {dataset.name} is {dataset.dtype} {dataset.shape}",
                why="pictures are (T, S, S, 3) bytes in LIBERO's layout",
                fix="use a file in LIBERO's layout, or collect again",
            )
        if dataset.chunks and dataset.chunks[1:] != dataset.shape[1:]:
            self._findings.setdefault(path, _chunked(dataset, path))
        return Place(file, dataset.name, hdf5.raw_offset(dataset), tuple(dataset.shape))

    def picture_size(self, place: Place) -> tuple[int, int]:
        """Height and width."""
        return place.shape[1], place.shape[2]

    def raw(self, places: Sequence[Sequence[Place]]) -> RawPlaces | None:
        """Where contiguous pictures lie; None when those of one episode are chunked."""
        if any(place.offset is None for camera in places for place in camera):
            return None
        offsets = np.array([[place.offset for place in camera] for camera in places], np.int64)
        return RawPlaces(self._bytes, np.array([place.file for place in places[0]]), offsets)

    def read(self, wanted: Sequence[Wanted]) -> None:
        """Read the wanted pictures.

        While the disk is busy all are announced and then read; once a batch needed no disk,
        they are copied from the map, until one does again.
        """
        for number in {place.file for place, _, _ in wanted}:
            self._bytes[number].require_whole()
        busy = self._disk.busy
        if busy:
            self._announce(wanted)
        for place, row, out in wanted:
            if place.offset is None:
                self._through_h5py(place, row, out)
                continue
            size = math.prod(place.shape[1:])
            start = place.offset + row * size
            if busy:
                self._bytes[place.file].read_into(start, out, place.dataset)
            else:
                view = self._bytes[place.file].mapped()[start : start + len(out) * size]
                out[:] = view.reshape(out.shape)
        self._disk.look()

    def _announce(self, wanted: Sequence[Wanted]) -> None:
        for place, row, out in wanted:
            if place.offset is not None:
                size = math.prod(place.shape[1:])
                self._bytes[place.file].announce(place.offset + row * size, len(out) * size)

    def _through_h5py(self, place: Place, row: int, out: NDArray[np.uint8]) -> None:
        path = self._paths[place.file]
        if place.file not in self._handles:
            self._handles[place.file] = hdf5.open_file(path)
        with hdf5.coded(path):
            out[:] = self._handles[place.file][place.dataset][row : row + len(out)]


def _dataset(demo: h5py.Group, name: str, path: Path) -> h5py.Dataset:
    found = require(demo, name, path)
    if not isinstance(found, h5py.Dataset):  # a damaged header can make it a group or a type
        raise TypeError(f"{demo.name}/{name} is no array")
    return found


def _array(demo: h5py.Group, name: str, path: Path) -> NDArray[np.float64]:
    dataset = _dataset(demo, name, path)
    width = dataset.shape[1] if len(dataset.shape) == 2 else len(dataset.shape)
    where = f"{path}: {demo.name}/{name}"
    if name == "actions":
        widths.require("action", width, where)
    elif width != ROBOT_DATASETS[name]:
        raise RefusedError(
            "RDTL-D004",
            f"{width} numbers per row of {name}, LIBERO has {ROBOT_DATASETS[name]}",
            where=where,
            why="they are of another robot, or of another array",
            fix="use a file in LIBERO's layout",
        )
    return hdf5.values(dataset, path)


def _sampled(demo: h5py.Group, length: int) -> NDArray[np.int64]:
    """Rows with a picture of their own: all, but for files of ours that say otherwise."""
    rows = np.arange(length)
    if "obs/frame_step" not in demo:
        return rows
    return np.flatnonzero(demo["obs/frame_step"][:length] == rows)


def _chunked(dataset: h5py.Dataset, path: Path) -> Finding:
    pieces = math.prod(
        -(-a // b) for a, b in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)
    )
    return Finding(
        "RDTL-D035",
        "warning",
        "pictures are chunked across pictures, as h5py does it by itself",
        where=f"{path}: {dataset.name}, chunks {dataset.chunks}, {dataset.compression or 'raw'}",
        why=f"one picture is in {pieces} chunks, each with pieces of {dataset.chunks[0]}: reading "
        "it costs about a hundred times what a contiguous one costs",
        fix="train on a contiguous copy: h5repack -l CONTI -f NONE FILE COPY",
    )
