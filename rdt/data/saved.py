"""What a walk over a data set found, kept beside the run that trains on it.

Reading the headers of thousands of episodes takes minutes on a cold file system; a
training process that starts again reads one file instead. That file also remembers what
the data were when the run began: whatever was written, added or removed since is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from launcher.core import files
from launcher.core.checks import Finding
from launcher.core.errors import RdtlError
from rdt.data.contents import Contents, changed, describe, walk
from rdt.data.recording import Conventions, Episode, Reader
from rdt.data.selection import Selection
from rdt.data.store import EpisodeStore, find_reader
from rdt.data.unified import RobotState

FORMAT = 1
HEADER = "rdtl"
Arrays = dict[str, NDArray[Any]]


def open_saved(
    folder: Path,
    path: Path,
    *,
    tasks: Sequence[str] = (),
    demos: Sequence[int | str] = (),
    gripper_open: int = -1,
    alignment: str | None = None,
) -> EpisodeStore:
    """:func:`rdt.data.store.open_store`, of which ``folder`` (of a run) keeps what it found.

    Several processes may do this at once. Raises RdtlError RDTL-D028 when a file of the set
    was changed, added or removed since, RDTL-D039 when what was kept is damaged.
    """
    # A link stays one: if it names other data by now, their files are not those that are kept.
    options = (str(path.absolute()), sorted(tasks), sorted(demos, key=str), gripper_open, alignment)
    key = hashlib.sha256(json.dumps([FORMAT, *options]).encode()).hexdigest()[:16]
    kept = folder / f"data-{key}.safetensors"
    reader = find_reader(path, Selection(tasks, demos), gripper_open, alignment)
    if kept.is_file():
        contents = load(kept, reader)
        require_same(contents.files, describe(reader.files()))
    else:
        contents = walk(reader)
        save(contents, kept)
    return EpisodeStore(reader, contents)


def require_same(then: list[dict[str, Any]], now: list[dict[str, Any]]) -> None:
    """Raise RDTL-D028 for the first file that is not as it was."""
    before, after = ({entry["path"]: entry for entry in each} for each in (then, now))
    for path in before | after:
        if before.get(path) != after.get(path):
            raise changed(before.get(path, {}), after.get(path, {}))


def save(contents: Contents, path: Path) -> None:
    """Write ``contents`` to ``path``, as a whole."""
    from safetensors.numpy import save as packed

    arrays: Arrays = {"actions": contents.actions, "sampled": contents.sampled}
    arrays |= {f"robot.{k}": np.asarray(v) for k, v in contents.robot._asdict().items()}
    if contents.quaternion is not None:
        arrays["quaternion"] = contents.quaternion
    header = {
        "files": contents.files,
        "conventions": vars(contents.conventions),
        "episodes": [[str(e.file), e.name, e.task, e.instruction, e.length] for e in contents[2]],
        "places": {
            camera: _pack(places, f"places.{camera}", arrays)
            for camera, places in contents.places.items()
        },
        "picture_size": contents.picture_size,
        "findings": [finding.to_dict() for finding in contents.findings],
    }
    whole = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    with files.whole_file(path) as temporary:
        temporary.write_bytes(packed(whole, {HEADER: json.dumps(header)}))


def load(path: Path, reader: Reader) -> Contents:
    """What :func:`save` wrote, with places as ``reader`` understands them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            header = json.loads(file.metadata()[HEADER])
            arrays: Arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        paths = {name: Path(name) for name in {entry[0] for entry in header["episodes"]}}
        return Contents(
            header["files"],
            Conventions(**header["conventions"]),
            [Episode(paths[file], *rest) for file, *rest in header["episodes"]],
            arrays["actions"],
            RobotState(*(arrays[f"robot.{name}"] for name in RobotState._fields)),
            arrays["sampled"],
            arrays.get("quaternion"),
            {
                camera: _unpack(columns, f"places.{camera}", arrays, reader.place)
                for camera, columns in header["places"].items()
            },
            header["picture_size"],
            [Finding(**finding) for finding in header["findings"]],
        )
    except (SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
        raise RdtlError(
            "RDTL-D039",
            "what a run keeps of its data set cannot be read",
            where=f"{path}: {type(error).__name__}: {error}",
            why="it was written as a whole, so the storage has damaged it",
            fix="remove this file: it is made again from the data set",
        ) from error


def _pack(places: list[Any], name: str, arrays: Arrays) -> dict[str, list[Any]]:
    """Fields of all ``places`` as columns; of arrays the lengths, their values to ``arrays``."""
    columns: dict[str, list[Any]] = {}
    for field in places[0]._fields:
        values = [getattr(place, field) for place in places]
        if isinstance(values[0], np.ndarray):
            arrays[f"{name}.{field}"] = np.concatenate(values)
            values = [len(value) for value in values]
        columns[field] = [str(value) if isinstance(value, Path) else value for value in values]
    return columns


def _unpack(
    columns: dict[str, list[Any]], name: str, arrays: Arrays, place: type[Any]
) -> list[Any]:
    """The inverse of :func:`_pack`."""
    kinds = get_type_hints(place)
    fields = []
    for field, values in columns.items():
        if (whole := arrays.get(f"{name}.{field}")) is not None:
            values = [whole[a:b] for a, b in pairwise(np.cumsum([0, *values]).tolist())]
        elif kinds[field] is Path:
            paths = {value: Path(value) for value in set(values)}
            values = [paths[value] for value in values]
        fields.append([tuple(v) if isinstance(v, list) else v for v in values])
    return [place(*values) for values in zip(*fields, strict=True)]
