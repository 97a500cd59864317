"""An RLDS set of the size of libero_object without no-ops, written without TensorFlow.

454 episodes, 66,984 steps, 32 shards, two JPEG of 256 x 256 and about 20 kB a step, in the
features of the published copies. Framing and Examples are written here, byte by byte.
"""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import simplejpeg
from numpy.typing import NDArray

EPISODES, STEPS, SHARDS = 454, 66_984, 32
PICTURES = 61  # different ones; a step takes the next two
NAME = "libero_object_no_noops"


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _feature(name: str, values: Any) -> bytes:
    """One entry of an Example's map: bytes, integers, or an array of floats."""
    if isinstance(values, np.ndarray):
        feature = _field(2, _field(1, values.astype("<f4").tobytes()))
    elif isinstance(values[0], bytes):
        feature = _field(1, b"".join(_field(1, value) for value in values))
    else:
        feature = _field(3, _field(1, b"".join(map(_varint, values))))
    return _field(1, _field(1, name.encode()) + _field(2, feature))


def _frame(data: bytes) -> bytes:
    def crc(part: bytes) -> bytes:
        value = google_crc32c.value(part)
        masked = ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF
        return struct.pack("<I", masked)

    length = struct.pack("<Q", len(data))
    return length + crc(length) + data + crc(data)


def jpegs() -> list[bytes]:
    """Pictures of noise on a smooth ground, about 20 kB each at quality 95."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(PICTURES):
        ground = np.kron(random.uniform(40, 200, (16, 16, 3)), np.ones((16, 16, 1)))
        picture = ground + random.normal(0, 4.2, (256, 256, 3))
        pixels = np.ascontiguousarray(picture.clip(0, 255).astype(np.uint8))
        found.append(simplejpeg.encode_jpeg(pixels, 95, "RGB", "420"))
    return found


def lengths() -> list[int]:
    """Steps of each episode, about 100 to 195, in all 66,984."""
    found = np.random.default_rng(1).integers(100, 196, EPISODES)
    found = found * STEPS // found.sum()
    found[: STEPS - found.sum()] += 1
    return [int(n) for n in found]


def _episode(number: int, steps: int, pictures: list[bytes]) -> bytes:
    random = np.random.default_rng([2, number])

    def numbers(width: int) -> NDArray[np.float32]:
        return random.normal(0, 0.3, (steps, width)).clip(-1, 1).astype(np.float32)

    action = numbers(7)
    action[:, 6] = np.where(np.arange(steps) < steps // 2, -1, 1)
    last = [0] * (steps - 1) + [1]
    chosen = [pictures[(number + i) % PICTURES] for i in range(steps + 1)]
    task = f"pick up the thing {number % 10} and place it in the basket".encode()
    features = {
        "episode_metadata/file_path": [b"/from/thing_%d_demo.hdf5" % (number % 10)],
        "steps/action": action,
        "steps/discount": np.ones(steps, np.float32),
        "steps/is_first": [1] + [0] * (steps - 1),
        "steps/is_last": last,
        "steps/is_terminal": last,
        "steps/language_instruction": [task] * steps,
        "steps/observation/image": chosen[:-1],
        "steps/observation/joint_state": numbers(7),
        "steps/observation/state": numbers(8),
        "steps/observation/wrist_image": chosen[1:],
        "steps/reward": np.array(last, np.float32),
    }
    return _field(1, b"".join(_feature(name, values) for name, values in features.items()))


def write(folder: Path) -> int:
    """Write the shards and the description; returns the bytes of the shards."""
    folder.mkdir(parents=True)
    pictures, counts, total = jpegs(), lengths(), 0
    cuts = [round(EPISODES * shard / SHARDS) for shard in range(SHARDS + 1)]
    for shard in range(SHARDS):
        with (folder / shard_name(shard, SHARDS)).open("wb") as file:
            for number in range(cuts[shard], cuts[shard + 1]):
                total += file.write(_frame(_episode(number, counts[number], pictures)))
    describe(folder, [b - a for a, b in itertools.pairwise(cuts)], total)
    return total


def shard_name(shard: int, of: int) -> str:
    """As TFDS names shards."""
    return f"{NAME}-train.tfrecord-{shard:05d}-of-{of:05d}"


def describe(folder: Path, episodes: list[int], size: int) -> None:
    """`dataset_info.json` for shards of so many episodes each."""
    split = {
        "name": "train",
        "shardLengths": [str(n) for n in episodes],
        "numBytes": str(size),
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    description = {"name": NAME, "version": "1.0.0", "fileFormat": "tfrecord", "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(description))
