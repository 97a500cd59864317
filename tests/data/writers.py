"""The collected demonstrations in the layouts in which LIBERO is published.

Nothing here uses what it tests: episodes are read with h5py, Examples are written by
protobuf itself, parquet by pyarrow, videos by ffmpeg. Pictures of RLDS and LeRobot are
turned by 180 degrees and their state is float32, as in the public copies.
"""

from __future__ import annotations

import io
import itertools
import json
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import google_crc32c
import h5py
import imageio_ffmpeg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.typing import NDArray
from PIL import Image

NOMINAL_FPS = 10
"""What public copies say; control runs at 20 Hz."""


@dataclass(frozen=True)
class Demo:
    """One demonstration as it lies in a collected file, observations before their actions."""

    task: str
    instruction: str
    arrays: dict[str, NDArray[Any]]

    @property
    def state(self) -> NDArray[np.float32]:
        parts = ("obs/ee_pos", "obs/ee_ori", "obs/gripper_states")
        return np.concatenate([self.arrays[part] for part in parts], axis=1).astype(np.float32)

    @property
    def turned(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Pictures of both cameras (T, S, S, 3), turned by 180 degrees."""
        names = ("obs/agentview_rgb", "obs/eye_in_hand_rgb")
        return tuple(np.ascontiguousarray(self.arrays[n][:, ::-1, ::-1]) for n in names)  # type: ignore[return-value]

    def __len__(self) -> int:
        return len(self.arrays["actions"])

    def part(self, steps: int, every: int = 1) -> Demo:
        """Its first steps, with each ``every``-th pixel of the pictures."""
        return replace(
            self,
            arrays={
                name: values[:steps, ::every, ::every] if name.endswith("_rgb") else values[:steps]
                for name, values in self.arrays.items()
            },
        )


def load(path: Path) -> list[Demo]:
    """All demonstrations of a file in LIBERO's layout that we wrote."""
    demos = []
    with h5py.File(path) as file:
        group = file["data"]
        assert group.attrs["obs_action_alignment"] == "before"
        instruction = json.loads(group.attrs["problem_info"])["language_instruction"]
        task = Path(group.attrs["bddl_file_name"]).stem
        for name in sorted(group, key=lambda name: int(name.removeprefix("demo_"))):
            arrays: dict[str, NDArray[Any]] = {}
            group[name].visititems(
                lambda key, item, arrays=arrays: (
                    arrays.update({key: item[:]}) if isinstance(item, h5py.Dataset) else None
                )
            )
            demos.append(Demo(task, instruction, arrays))
    return demos


def write_upstream(demos: Sequence[Demo], folder: Path, source: Path) -> Path:
    """As upstream writes it: ``obs[j]`` after ``actions[j]``, its attributes, nothing of ours."""
    path = folder / f"{demos[0].task}_demo.hdf5"
    with h5py.File(path, "w") as file, h5py.File(source) as ours:
        group = file.create_group("data")
        for key, value in ours["data"].attrs.items():
            if key not in ("obs_action_alignment", "collection", "num_demos", "total"):
                group.attrs[key] = value
        group.attrs["num_demos"] = len(demos)
        for number, demo in enumerate(demos):
            written = group.create_group(f"demo_{number}")
            written.attrs["num_samples"] = len(demo) - 1
            for key, values in demo.arrays.items():
                if key in ("executed_actions", "obs/frame_step"):
                    continue
                late = key.startswith("obs/") or key == "robot_states"
                written[key] = values[1:] if late else values[:-1]
    return path


def write_regenerated(demos: Sequence[Demo], folder: Path) -> Path:
    """As the no-op filter's authors write it: no attribute at all, aligned."""
    path = folder / f"{demos[0].task}_demo.hdf5"
    with h5py.File(path, "w") as file:
        for number, demo in enumerate(demos):
            group = file.create_group(f"data/demo_{number}")
            for key, values in demo.arrays.items():
                if key not in ("executed_actions", "obs/frame_step"):
                    group[key] = values
    return path


def example_class() -> Any:
    """`tf.train.Example`, built from its published schema."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(name: str, fields: list[tuple[str, int, int, bool, str]]) -> Any:
        made = file.message_type.add(name=name)
        for field, number, kind, repeated, of in fields:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            made.field.add(name=field, number=number, type=kind, label=label, type_name=of or None)
        return made

    message("BytesList", [("value", 1, kinds.TYPE_BYTES, True, "")])
    message("FloatList", [("value", 1, kinds.TYPE_FLOAT, True, "")])
    message("Int64List", [("value", 1, kinds.TYPE_INT64, True, "")])
    lists = (("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List"))
    feature = message(
        "Feature",
        [
            (name, n + 1, kinds.TYPE_MESSAGE, False, f".t.{of}")
            for n, (name, of) in enumerate(lists)
        ],
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = message(
        "Features", [("feature", 1, kinds.TYPE_MESSAGE, True, ".t.Features.FeatureEntry")]
    )
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    entry.field.add(
        name="value",
        number=2,
        type=kinds.TYPE_MESSAGE,
        label=kinds.LABEL_OPTIONAL,
        type_name=".t.Feature",
    )
    message("Example", [("features", 1, kinds.TYPE_MESSAGE, False, ".t.Features")])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


EXAMPLE = example_class()


def frame(data: bytes) -> bytes:
    """One TFRecord."""

    def crc(part: bytes) -> bytes:
        value = google_crc32c.value(part)
        rotated = (value >> 15) | (value << 17 & 0xFFFFFFFF)
        return struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)

    length = struct.pack("<Q", len(data))
    return length + crc(length) + data + crc(data)


def example(values: dict[str, Any]) -> bytes:
    """A serialised Example: lists of bytes, of integers, or arrays of floats by name."""
    made = EXAMPLE()
    for name, value in values.items():
        feature = made.features.feature[name]
        if isinstance(value, np.ndarray):
            feature.float_list.value.extend(value.ravel().tolist())
        elif isinstance(value[0], bytes):
            feature.bytes_list.value.extend(value)
        else:
            feature.int64_list.value.extend(value)
    return bytes(made.SerializeToString())


def rlds_episode(demo: Demo, quality: int = 95) -> dict[str, Any]:
    """The features of one episode in the layout of modified_libero_rlds."""
    image, wrist = (
        [simplejpeg.encode_jpeg(picture, quality, "RGB", "444") for picture in pictures]
        for pictures in demo.turned
    )
    T = len(demo)
    last = [0] * (T - 1) + [1]
    return {
        "steps/action": demo.arrays["actions"].astype(np.float32),
        "steps/observation/state": demo.state,
        "steps/observation/joint_state": demo.arrays["obs/joint_states"].astype(np.float32),
        "steps/observation/image": image,
        "steps/observation/wrist_image": wrist,
        "steps/language_instruction": [demo.instruction.encode()] * T,
        "steps/is_first": [1] + [0] * (T - 1),
        "steps/is_last": last,
        "steps/is_terminal": last,
        "steps/reward": np.array(last, np.float32),
        "steps/discount": np.ones(T, np.float32),
        "episode_metadata/file_path": [f"/from/{demo.task}_demo.hdf5".encode()],
    }


def write_rlds(
    episodes: Sequence[dict[str, Any]], folder: Path, shards: int = 2, name: str = "liber_o10"
) -> Path:
    """Shards and description; ``episodes`` as of :func:`rlds_episode`."""
    folder.mkdir(parents=True)
    cuts = np.linspace(0, len(episodes), shards + 1).round().astype(int).tolist()
    for shard, (start, end) in enumerate(itertools.pairwise(cuts)):
        path = folder / f"{name}-train.tfrecord-{shard:05d}-of-{shards:05d}"
        path.write_bytes(b"".join(frame(example(values)) for values in episodes[start:end]))
    lengths = [str(end - start) for start, end in itertools.pairwise(cuts)]
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    split = {"name": "train", "shardLengths": lengths, "filepathTemplate": template}
    description = {"name": name, "version": "1.0.0", "fileFormat": "tfrecord", "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(description))
    return folder


def write_lerobot2(demos: Sequence[Demo], folder: Path, encoding: str = "PNG") -> Path:
    """Version 2.1: a parquet file per episode with its pictures; plain key names."""
    shape = list(demos[0].turned[0].shape[1:])
    cameras = {name: {"dtype": "image", "shape": shape} for name in ("image", "wrist_image")}
    rows = {"state": {"dtype": "float32", "shape": [8]}, "actions": {"dtype": "float32"}}
    data_path = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    _write_info(folder, demos, "v2.1", cameras | rows, {"data_path": data_path})
    tasks = _tasks(demos)
    _write_lines(
        folder / "meta/tasks.jsonl", [{"task_index": i, "task": t} for t, i in tasks.items()]
    )
    listed = [
        {"episode_index": n, "tasks": [demo.instruction], "length": len(demo)}
        for n, demo in enumerate(demos)
    ]
    _write_lines(folder / "meta/episodes.jsonl", listed)
    start = 0
    for number, demo in enumerate(demos):
        columns = _columns(demo, number, start, tasks[demo.instruction], ("state", "actions"))
        for name, pictures in zip(cameras, demo.turned, strict=True):
            columns[name] = [{"bytes": _encode(p, encoding), "path": None} for p in pictures]
        path = folder / data_path.format(episode_chunk=0, episode_index=number)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path, row_group_size=50)
        start += len(demo)
    return folder


LOSSLESS = ("-c:v", "libx264rgb", "-qp", "0", "-g", "12", "-bf", "3")
AV1 = ("-c:v", "libsvtav1", "-g", "2", "-crf", "30", "-pix_fmt", "yuv420p")
"""What LeRobot itself writes."""


def write_lerobot3(demos: Sequence[Demo], folder: Path, codec: Sequence[str] = LOSSLESS) -> Path:
    """Version 3.0: all episodes in one parquet file and one video per camera."""
    keys = ("observation.images.image", "observation.images.image2")
    shape = list(demos[0].turned[0].shape[1:])
    cameras = {key: {"dtype": "video", "shape": shape} for key in keys}
    rows = {"observation.state": {"dtype": "float32", "shape": [8]}, "action": {"dtype": "float32"}}
    paths = {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    _write_info(folder, demos, "v3.0", cameras | rows, paths)
    tasks = _tasks(demos)
    index = {"task_index": list(tasks.values()), "__index_level_0__": list(tasks)}
    pq.write_table(pa.table(index), folder / "meta/tasks.parquet")
    lengths = [len(demo) for demo in demos]
    starts = np.cumsum([0, *lengths]).tolist()
    listed: dict[str, Any] = {
        "episode_index": list(range(len(demos))),
        "tasks": [[demo.instruction] for demo in demos],
        "length": lengths,
        "data/chunk_index": [0] * len(demos),
        "data/file_index": [0] * len(demos),
        "dataset_from_index": starts[:-1],
        "dataset_to_index": starts[1:],
        "stats/action/mean": [demo.arrays["actions"].mean(0).tolist() for demo in demos],
    }
    for key in keys:
        listed |= {
            f"videos/{key}/chunk_index": [0] * len(demos),
            f"videos/{key}/file_index": [0] * len(demos),
            f"videos/{key}/from_timestamp": [start / NOMINAL_FPS for start in starts[:-1]],
            f"videos/{key}/to_timestamp": [end / NOMINAL_FPS for end in starts[1:]],
        }
    _write_parquet(listed, folder / "meta/episodes/chunk-000/file-000.parquet")
    tables = [
        pa.table(_columns(demo, n, start, tasks[demo.instruction], ("observation.state", "action")))
        for n, (demo, start) in enumerate(zip(demos, starts, strict=False))
    ]
    _write_parquet(pa.concat_tables(tables), folder / "data/chunk-000/file-000.parquet")
    for place, key in enumerate(keys):
        path = folder / f"videos/{key}/chunk-000/file-000.mp4"
        path.parent.mkdir(parents=True)
        write_video(np.concatenate([demo.turned[place] for demo in demos]), path, codec)
    return folder


def write_video(frames: NDArray[np.uint8], path: Path, codec: Sequence[str]) -> None:
    """(n, S, S, 3) uint8 RGB as mp4."""
    height, width = frames.shape[1:3]
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *source]
    timing = ["-r", str(NOMINAL_FPS), "-i", "-", *codec, str(path)]
    subprocess.run([*program, *timing], input=frames.tobytes(), check=True, timeout=120)


def _tasks(demos: Sequence[Demo]) -> dict[str, int]:
    return {text: i for i, text in enumerate(dict.fromkeys(demo.instruction for demo in demos))}


def _columns(
    demo: Demo, number: int, start: int, task: int, keys: tuple[str, str]
) -> dict[str, Any]:
    T = len(demo)
    fixed = pa.list_(pa.float32(), 8)
    return {
        keys[0]: pa.array(demo.state.tolist(), fixed),
        keys[1]: pa.array(
            demo.arrays["actions"].astype(np.float32).tolist(), pa.list_(pa.float32())
        ),
        "timestamp": np.arange(T, dtype=np.float32) / NOMINAL_FPS,
        "frame_index": np.arange(T),
        "episode_index": np.full(T, number),
        "index": np.arange(start, start + T),
        "task_index": np.full(T, task),
    }


def _encode(picture: NDArray[np.uint8], encoding: str) -> bytes:
    file = io.BytesIO()
    options = {"quality": 95, "subsampling": 0} if encoding == "JPEG" else {}
    Image.fromarray(picture).save(file, encoding, **options)
    return file.getvalue()


def _write_info(
    folder: Path, demos: Sequence[Demo], version: str, features: dict[str, Any], paths: Any
) -> None:
    (folder / "meta").mkdir(parents=True)
    information = {
        "codebase_version": version,
        "robot_type": "panda",
        "total_episodes": len(demos),
        "total_frames": sum(map(len, demos)),
        "chunks_size": 1000,
        "fps": NOMINAL_FPS,
        "features": features,
        **paths,
    }
    (folder / "meta/info.json").write_text(json.dumps(information))


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_parquet(columns: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path)
