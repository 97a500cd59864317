"""What `meta/` of a LeRobot data set says: features, tasks, and where each episode lies.

Versions 2.0 and 2.1 list tasks and episodes in JSON lines, version 3 in parquet. Keys have
aliases, since copies name the same thing differently. Where an episode starts in a video
follows from the lengths of the episodes before it, never from times and a frame rate.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from launcher.core.errors import RdtlError
from rdt.data.lerobot_files import coded, json_lines, missing_column, unreadable

ACTION_KEYS = ("action", "actions")
STATE_KEYS = ("observation.state", "state")
JOINT_KEYS = ("observation.joint_state", "joint_state", "observation.states.joint_state")
CAMERA_KEYS = {
    "agentview": ("observation.images.image", "image", "observation.image"),
    "eye_in_hand": (
        "observation.images.wrist_image",
        "wrist_image",
        "observation.images.image2",
        "observation.wrist_image",
    ),
}


class Feature(NamedTuple):
    """A camera's key, and whether its pictures are a video."""

    key: str
    video: bool


class Listed(NamedTuple):
    """An episode as listed: its parquet file and number of steps; ``row`` as in the list."""

    number: int
    file: Path
    length: int
    row: dict[str, Any]


class Meta:
    """``episodes`` sorted by number, ``numbers`` their places; keys of action, state, joints
    (None when there are none) and cameras; ``video_size``: height and width of the videos."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.info = _info(path / "meta/info.json")
        with coded(path / "meta"):
            self._read()

    def _read(self) -> None:
        path = self.path
        self._version3 = str(self.info["codebase_version"]).startswith("v3")
        features = self.info["features"]
        self.action = _key(features, ACTION_KEYS, path)
        self.state = _key(features, STATE_KEYS, path)
        self.joints = next((name for name in JOINT_KEYS if name in features), None)
        self.cameras = {
            camera: Feature(name, features[name].get("dtype") == "video")
            for camera, names in CAMERA_KEYS.items()
            for name in names
            if name in features
        }
        self.video_size = self._video_size(features)
        self._tasks = self._read_tasks()
        self.episodes = self._read_episodes()
        self.numbers = {episode.number: place for place, episode in enumerate(self.episodes)}
        self._video_places = {
            feature.key: self._place_videos(feature.key)
            for feature in self.cameras.values()
            if feature.video
        }

    def files(self) -> list[Path]:
        """Every file of the set."""
        meta = [path for path in sorted((self.path / "meta").rglob("*")) if path.is_file()]
        data = dict.fromkeys(episode.file for episode in self.episodes)
        videos = dict.fromkeys(
            place[0] for places in self._video_places.values() for place in places.values()
        )
        return [*meta, *data, *videos]

    def instruction(self, indices: pa.ChunkedArray, where: str) -> str:
        """The task of an episode in words; all its rows must name the same."""
        found = set(indices.to_pylist())
        text = self._tasks.get(next(iter(found)), "") if len(found) == 1 else ""
        if not text:
            raise RdtlError(
                "RDTL-D020",
                "an episode has no instruction, or several",
                where=f"{where}, task_index {sorted(map(str, found))}",
                why="the policy is conditioned on the words of the task",
                fix="copy meta/ and this file again from their source",
            )
        return text

    def video(self, number: int, camera: str) -> tuple[Path, int, int]:
        """Video of an episode, its first frame there, and how many the video must have."""
        return self._video_places[camera][number]

    def _video_size(self, features: dict[str, Any]) -> tuple[int, int]:
        """Copies give the shape as (height, width, 3) or as (3, height, width)."""
        declared = [tuple(features[f.key]["shape"]) for f in self.cameras.values() if f.video]
        shapes = {shape[1:] if shape[0] == 3 else shape[:2] for shape in declared}
        if len(shapes) > 1:
            raise unreadable(self.path / "meta/info.json", f"videos of sizes {sorted(shapes)}")
        return next(iter(shapes), (0, 0))

    def _read_tasks(self) -> dict[int, str]:
        if not self._version3:
            rows = json_lines(self.path / "meta/tasks.jsonl")
            return {int(row["task_index"]): str(row["task"]) for row in rows}
        path = self.path / "meta/tasks.parquet"
        with coded(path):
            table = pq.read_table(path)
            texts = [f.name for f in table.schema if f.type in (pa.string(), pa.large_string())]
            if "task_index" not in table.column_names or len(texts) != 1:
                raise missing_column(path, "task_index and one of text", table.column_names)
            indices = table["task_index"].to_pylist()
            return dict(zip(indices, table[texts[0]].to_pylist(), strict=True))

    def _read_episodes(self) -> list[Listed]:
        rows = self._episode_rows()
        listed = sorted(
            (
                Listed(int(row["episode_index"]), self._data_file(row), int(row["length"]), row)
                for row in rows
            ),
            key=lambda episode: episode.number,
        )
        said = (self.info.get("total_episodes"), self.info.get("total_frames"))
        found = (len(listed), sum(episode.length for episode in listed))
        numbers = {episode.number for episode in listed}
        if said != found or len(numbers) != len(listed) or not listed:
            raise unreadable(
                self.path / "meta",
                f"info.json says (episodes, frames) {said}, the list of episodes has {found}",
            )
        return listed

    def _episode_rows(self) -> list[dict[str, Any]]:
        if not self._version3:
            return json_lines(self.path / "meta/episodes.jsonl")
        rows: list[dict[str, Any]] = []
        for path in sorted((self.path / "meta/episodes").rglob("*.parquet")):
            with coded(path):
                file = pq.ParquetFile(path)
                wanted = [n for n in file.schema_arrow.names if not n.startswith("stats/")]
                rows += file.read(columns=wanted).to_pylist()
        return rows

    def _data_file(self, row: dict[str, Any]) -> Path:
        if self._version3:
            values = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        else:
            values = self._chunk(row)
        return self._path("data_path", values)

    def _chunk(self, row: dict[str, Any]) -> dict[str, Any]:
        number = int(row["episode_index"])
        chunk = number // int(self.info.get("chunks_size", 1000))
        return {"episode_chunk": chunk, "episode_index": number}

    def _path(self, template: str, values: dict[str, Any]) -> Path:
        """A path by the template of that name in info.json, inside the data set."""
        relative = Path(str(self.info[template]).format(**values))
        if relative.is_absolute() or ".." in relative.parts:
            raise unreadable(self.path / "meta/info.json", f"{template} leads out of the set")
        return self.path / relative

    def _place_videos(self, key: str) -> dict[int, tuple[Path, int, int]]:
        """By episode: video, first frame, and how many frames its episodes have together."""
        inside: dict[Path, list[Listed]] = {}
        for episode in self.episodes:
            values: dict[str, Any] = {"video_key": key}
            if self._version3:
                values |= {
                    n: episode.row[f"videos/{key}/{n}"] for n in ("chunk_index", "file_index")
                }
            else:
                values |= self._chunk(episode.row)
            inside.setdefault(self._path("video_path", values), []).append(episode)
        places = {}
        for path, episodes in inside.items():
            if self._version3:
                episodes.sort(key=lambda e: float(e.row[f"videos/{key}/from_timestamp"]))
            ends = np.cumsum([episode.length for episode in episodes]).tolist()
            for episode, end in zip(episodes, ends, strict=True):
                places[episode.number] = (path, end - episode.length, ends[-1])
        return places


def _key(features: dict[str, Any], names: tuple[str, ...], path: Path) -> str:
    for name in names:
        if name in features:
            return name
    raise missing_column(path / "meta/info.json", " or ".join(names), sorted(features))


def _info(path: Path) -> dict[str, Any]:
    with coded(path):
        info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if str(info["codebase_version"])[:2] not in ("v2", "v3"):
            raise ValueError(f"codebase_version {info['codebase_version']}")
        return info
