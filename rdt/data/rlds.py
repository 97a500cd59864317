"""RLDS data sets as TFDS writes them: `dataset_info.json` and TFRecord shards.

One record is one episode, its steps flattened. The shards are found by their ending
(`-train.tfrecord-00000-of-00032`), since public copies carry other names in front, such
as `liber_o10`, and their episodes are counted against `dataset_info.json`: a shard that
is missing or ends between two records is an error. Pictures stay where they are; their
offsets are noted in the one walk over the headers that also finds the numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from launcher.core.checks import Finding
from launcher.core.errors import RdtlError, RefusedError
from rdt.data import pictures, tfrecord
from rdt.data.ranges import ByteFile
from rdt.data.recording import (
    Conventions,
    Episode,
    RawPlaces,
    Recording,
    Wanted,
    aligned,
    require_alignment,
    split_state,
)
from rdt.data.selection import Selection, key
from rdt.data.tfrecord import Extent

SPLIT = "train"
CAMERA_FEATURES = {
    "agentview": "steps/observation/image",
    "eye_in_hand": "steps/observation/wrist_image",
}
ACTION, STATE = "steps/action", "steps/observation/state"
JOINTS, LANGUAGE = "steps/observation/joint_state", "steps/language_instruction"
FILE_PATH = "episode_metadata/file_path"


class Place(NamedTuple):
    """Pictures of one camera in one episode: offsets and sizes (T,) in bytes."""

    file: int
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]


class RldsShards:
    """Reader of the folder that holds `dataset_info.json` (it usually ends in `/1.0.0`)."""

    kind = "rlds"
    place = Place

    def __init__(
        self, path: Path, selection: Selection, gripper_open: int, alignment: str | None
    ) -> None:
        self.path = path
        self._selection = selection
        self._lengths = _shard_lengths(path / "dataset_info.json")
        self._shards = [ByteFile(shard) for shard in _shards(path, len(self._lengths))]
        self.conventions = Conventions(gripper_open, require_alignment(alignment, "before"), "180")

    def files(self) -> list[Path]:
        """The description and the shards."""
        return [self.path / "dataset_info.json", *(shard.path for shard in self._shards)]

    def findings(self) -> list[Finding]:
        """What is left out; every picture is decoded alone."""
        return self._selection.findings(self.path)

    def recordings(self) -> Iterator[Recording]:
        """Episodes in the order of shards and records."""
        self._selection.start()
        first = 0
        for number, (shard, length) in enumerate(zip(self._shards, self._lengths, strict=True)):
            shard.sparse()
            found = 0
            for record in tfrecord.records(shard):
                recording = self._recording(number, record, f"episode_{first + found:06d}")
                found += 1
                if recording is not None:
                    yield recording
            if found != length:
                raise shard.cut(0, shard.size, shard.size, f"{found} of {length} episodes")
            first += length
        self._selection.finish(self.path)

    def _recording(self, number: int, record: Extent, name: str) -> Recording | None:
        shard = self._shards[number]
        features = tfrecord.features(shard, record)
        where = f"{shard.path}: {name}, record at offset {record.start - tfrecord.LENGTH}"
        instruction = self._text(shard, features, LANGUAGE, where)
        task = key(instruction)
        if FILE_PATH in features:
            task = Path(self._text(shard, features, FILE_PATH, where)).stem.removesuffix("_demo")
        if not self._selection.wants(task, instruction, name):
            return None
        places = {
            camera: Place(number, *tfrecord.blobs(shard, features[feature]))
            for camera, feature in CAMERA_FEATURES.items()
            if feature in features
        }
        lengths = {CAMERA_FEATURES[camera]: len(place.sizes) for camera, place in places.items()}
        if not lengths:
            lengths[LANGUAGE] = len(tfrecord.blobs(shard, features[LANGUAGE])[0])
        rows = {
            name: _rows(shard, _feature(features, name, where), lengths, f"{where}, {name}")
            for name in (ACTION, STATE, *([JOINTS] if JOINTS in features else []))
        }
        robot = split_state(rows[STATE], rows.get(JOINTS), f"{where}, {STATE}")
        actions, robot = aligned(rows[ACTION], robot, self.conventions, lengths, where)
        T = len(actions)
        episode = Episode(shard.path, name, task, instruction, T)
        return Recording(episode, actions, robot, np.arange(T), dict(places))

    def _text(self, shard: ByteFile, features: dict[str, Extent], name: str, where: str) -> str:
        """The first value of a list of texts; RDTL-D020 when it is empty."""
        offsets, sizes = tfrecord.blobs(shard, _feature(features, name, where), most=1)
        try:
            text = shard.read(int(offsets[0]), int(sizes[0])).decode().strip() if len(sizes) else ""
        except UnicodeDecodeError as error:
            raise tfrecord.damaged(shard, int(offsets[0]), f"{name} is no text") from error
        if not text:
            raise RdtlError(
                "RDTL-D020",
                f"an episode has no {name}",
                where=where,
                why="the policy is conditioned on the words of the task",
                fix="convert the data set again with its instructions",
            )
        return text

    def picture_size(self, place: Place) -> tuple[int, int]:
        """Height and width of the first picture, from its header."""
        head = min(pictures.HEADER_BYTES, int(place.sizes[0]))
        shard = self._shards[place.file]
        return pictures.size(shard.read(int(place.offsets[0]), head), str(shard.path))

    def raw(self, places: Sequence[Sequence[Place]]) -> RawPlaces | None:
        """None: every picture is encoded."""
        return None

    def read(self, wanted: Sequence[Wanted]) -> None:
        """Decode the wanted pictures, and no other; all are announced first."""
        chosen = [
            (
                self._shards[place.file],
                int(place.offsets[row + i]),
                int(place.sizes[row + i]),
                out[i],
            )
            for place, row, out in wanted
            for i in range(len(out))
        ]
        for shard, offset, size, _ in chosen:
            shard.announce(offset, size)
        for shard, offset, size, out in chosen:
            pictures.decode(shard.read(offset, size), out, f"{shard.path}: offset {offset}")


def verify_checksums(path: Path) -> int:
    """Compare the checksum of every record's data; returns how many records there are.

    Reads every byte of the set. Raises RdtlError RDTL-D013 or RDTL-D030 with file and offset.
    """
    shards = _shards(path, len(_shard_lengths(path / "dataset_info.json")))
    return sum(1 for shard in shards for _ in tfrecord.records(ByteFile(shard), verify=True))


def _feature(features: dict[str, Extent], name: str, where: str) -> Extent:
    if name not in features:
        raise RdtlError(
            "RDTL-D014",
            f"an episode lacks {name}",
            where=f"{where}; it has {', '.join(sorted(features))[:400]}",
            why="it is part of the layout in which LIBERO is published as RLDS",
            fix="use a copy in that layout, e.g. one made like modified_libero_rlds",
        )
    return features[name]


def _rows(
    shard: ByteFile, feature: Extent, lengths: dict[str, int], where: str
) -> NDArray[np.float32]:
    """A flattened list of floats as (T, ·), T being the number of pictures."""
    values = tfrecord.floats(shard, feature)
    name, T = next(iter(lengths.items()))
    if T == 0 or len(values) % T:
        raise RdtlError(
            "RDTL-D031",
            "the parts of an episode differ in length",
            where=f"{where}: {len(values)} numbers for {T} times {name}",
            why="nobody can tell which action answers which observation",
            fix="convert this episode again, or choose others",
        )
    return values.reshape(T, -1)


def _shard_lengths(path: Path) -> list[int]:
    """Episodes in each shard of the training split."""
    try:
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        splits = {split["name"]: split["shardLengths"] for split in description["splits"]}
        return [int(length) for length in splits[SPLIT]]
    except (ValueError, KeyError, TypeError) as error:
        raise RdtlError(
            "RDTL-D023",
            "the description of an RLDS data set cannot be read",
            where=f"{path}: {type(error).__name__}: {error}",
            why=f"it names the shards of the split {SPLIT!r} and their episodes",
            fix="copy this file again from its source; it was left as it is",
        ) from error


def _shards(path: Path, count: int) -> list[Path]:
    """The shards by number, whatever stands in front of their common ending."""
    ending = re.compile(rf"(.*)-{SPLIT}\.tfrecord-(\d{{5}})-of-{count:05d}")
    found = {entry: match for entry in path.iterdir() if (match := ending.fullmatch(entry.name))}
    prefixes = sorted({match[1] for match in found.values()})
    numbers = {int(match[2]): entry for entry, match in found.items()}
    missing = [number for number in range(count) if number not in numbers]
    if len(prefixes) == 1 and not missing and len(found) == count:
        return [numbers[number] for number in range(count)]
    what = f"data sets {', '.join(prefixes)}" if len(prefixes) > 1 else f"shard {missing[:5]}"
    raise RefusedError(
        "RDTL-D023",
        f"the shards of an RLDS data set are not {count} in one sequence",
        where=f"{path}: {'several ' + what if len(prefixes) > 1 else 'no ' + what}; "
        f"{len(found)} files *-{SPLIT}.tfrecord-*-of-{count:05d}",
        why="episodes that are missing would silently not be learned",
        fix="copy the data set again, one set to a folder",
    )
