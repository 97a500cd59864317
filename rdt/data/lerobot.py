"""LeRobot data sets: v2 (a parquet file per episode) and v3 (many episodes per file).

Numbers lie in parquet; pictures as PNG or JPEG in the same parquet, or as videos. What
stands where is read from `meta/` (:mod:`rdt.data.lerobot_meta`); a nominal `fps` there is
never used, since copies say 10, 20 or 30 of the same 20 Hz. A picture out of parquet costs
its whole row group (often an episode), so row groups used last are kept, up to 256 MB.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from launcher.core.checks import Finding
from launcher.core.errors import RdtlError
from rdt.data import pictures
from rdt.data.kept import Kept
from rdt.data.lerobot_files import coded, missing_column
from rdt.data.lerobot_meta import Listed, Meta
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
from rdt.data.video import VideoCache, broken


class Place(NamedTuple):
    """Pictures of one camera in one episode: rows of a parquet file, or frames of a video
    that has ``of`` frames."""

    path: Path
    column: str | None
    first: int
    of: int


class LeRobotFolder:
    """Reader of the folder that holds `meta/info.json`."""

    kind = "lerobot"
    place = Place

    def __init__(
        self, path: Path, selection: Selection, gripper_open: int, alignment: str | None
    ) -> None:
        self.path = path
        self._selection = selection
        self._meta = Meta(path)
        self.conventions = Conventions(gripper_open, require_alignment(alignment, "before"), "180")
        self._videos = VideoCache()
        self._ends: dict[Path, NDArray[np.int64]] = {}
        self._groups: Kept[pa.Array] = Kept()

    def files(self) -> list[Path]:
        """Descriptions, parquet files and videos."""
        return self._meta.files()

    def findings(self) -> list[Finding]:
        """What is left out; what it costs to read is the format's own."""
        return self._selection.findings(self.path)

    def recordings(self) -> Iterator[Recording]:
        """Episodes in the order of their numbers."""
        self._selection.start()
        numbers: Numbers | None = None
        for episode in self._meta.episodes:
            if numbers is None or numbers.path != episode.file:
                numbers = Numbers(episode.file, self._meta)
            rows = numbers.rows(episode)
            where = f"{episode.file}: episode {episode.number}"
            instruction = self._meta.instruction(rows.table["task_index"], where)
            name = f"episode_{episode.number:06d}"
            if self._selection.wants(key(instruction), instruction, name):
                yield self._recording(episode, rows, (name, instruction, where))
        self._selection.finish(self.path)

    def _recording(self, episode: Listed, rows: Rows, names: tuple[str, str, str]) -> Recording:
        meta, (name, instruction, where) = self._meta, names
        state = rows.matrix(meta.state, where)
        joints = rows.matrix(meta.joints, where) if meta.joints else None
        actions, robot = aligned(
            rows.matrix(meta.action, where),
            split_state(state, joints, f"{where}, {meta.state}"),
            self.conventions,
            {meta.state: len(state)},
            where,
        )
        places = {}
        for camera, feature in meta.cameras.items():
            if feature.video:
                path, first, of = meta.video(episode.number, feature.key)
                places[camera] = Place(path, None, first, of)
            else:
                places[camera] = Place(episode.file, feature.key, rows.first, 0)
        T = len(actions)
        described = Episode(episode.file, name, key(instruction), instruction, T)
        return Recording(described, actions, robot, np.arange(T), places)

    def picture_size(self, place: Place) -> tuple[int, int]:
        """Height and width: of the first picture, or what is said of the videos."""
        if place.column is None:
            return self._meta.video_size
        data = self._encoded(place, place.first)
        return pictures.size(data, f"{place.path}: {place.column}, row {place.first}")

    def raw(self, places: Sequence[Sequence[Place]]) -> RawPlaces | None:
        """None: every picture is encoded."""
        return None

    def read(self, wanted: Sequence[Wanted]) -> None:
        """Decode the wanted pictures."""
        for place, row, out in wanted:
            first = place.first + row
            if place.column is None:
                self._require_frames(place)
                self._videos.read(place.path, first, out)
            else:
                for i in range(len(out)):
                    where = f"{place.path}: {place.column}, row {first + i}"
                    pictures.decode(self._encoded(place, first + i), out[i], where)

    def _require_frames(self, place: Place) -> None:
        frames = len(self._videos.video(place.path))
        if frames != place.of:
            raise broken(place.path, f"it has {frames} frames, its episodes have {place.of}")

    def _encoded(self, place: Place, row: int) -> bytes:
        """A picture's bytes out of its row group, which is kept for its neighbours."""
        if place.path not in self._ends:
            with coded(place.path):
                metadata = pq.ParquetFile(place.path).metadata
                counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            self._ends[place.path] = np.cumsum(counts)
        ends = self._ends[place.path]
        group = int(np.searchsorted(ends, row, "right"))
        cached = (place.path, str(place.column), group)
        encoded = self._groups.get(cached)
        if encoded is None:
            with coded(place.path):
                encoded = _picture_bytes(*cached)
            self._groups.put(cached, encoded)
        with coded(place.path):  # a damaged description may promise more rows than there are
            data = encoded[row - (int(ends[group - 1]) if group else 0)].as_py()
        if data is None:
            where = f"{place.path}: {place.column}, row {row}"
            raise pictures.undecodable(where, "there are no bytes, only the name of a file")
        return bytes(data)


def _picture_bytes(path: Path, column: str, group: int) -> pa.Array:
    table = pq.ParquetFile(path).read_row_group(group, columns=[f"{column}.bytes"])
    return pc.struct_field(table[column].combine_chunks(), "bytes")


class Rows(NamedTuple):
    """The numbers of one episode, and its first row in the file."""

    table: pa.Table
    first: int

    def matrix(self, column: str, where: str) -> NDArray[Any]:
        """A column of lists as (T, ·) in its own float type; of one length and without gaps."""
        with coded(Path(f"{where}, {column}")):
            lists = self.table[column].combine_chunks()
            lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
            values = lists.flatten()
            width = int(lengths[0])
            whole = values.null_count == 0 and lists.null_count == 0 and (lengths == width).all()
            if not whole or not pa.types.is_floating(values.type):
                raise ValueError(f"lists of {values.type} of lengths {set(lengths.tolist())}")
            return np.asarray(values.to_numpy()).reshape(len(lengths), width)


class Numbers:
    """One parquet file without its pictures."""

    def __init__(self, path: Path, meta: Meta) -> None:
        self.path = path
        joints = [meta.joints] if meta.joints else []
        columns = ["episode_index", "frame_index", "task_index", meta.action, meta.state, *joints]
        pictures_here = [feature.key for feature in meta.cameras.values() if not feature.video]
        with coded(path):
            file = pq.ParquetFile(path)
            for column in (*columns, *pictures_here):
                if column not in file.schema_arrow.names:
                    raise missing_column(path, column, file.schema_arrow.names)
            self._table = file.read(columns=columns)
            self._episodes = self._table["episode_index"].to_numpy()
            self._order = self._table["frame_index"].to_numpy()

    def rows(self, episode: Listed) -> Rows:
        """One episode's rows; RdtlError RDTL-D031 unless they are its steps in order."""
        places = np.flatnonzero(self._episodes == episode.number)
        first = int(places[0]) if len(places) else 0
        order = self._order[first : first + len(places)]
        if len(places) != episode.length or not np.array_equal(order, np.arange(len(places))):
            raise RdtlError(
                "RDTL-D031",
                "an episode has other rows than its description says",
                where=f"{self.path}: episode {episode.number}, {len(places)} rows for "
                f"{episode.length} steps",
                why="rows are missing, doubled or out of order",
                fix="copy this file again from its source; it was left as it is",
            )
        return Rows(self._table.slice(first, len(places)), first)
