"""One side of `benchmarks.loader` in a process of its own: its costs as one line of JSON.

``reference``: our own writing of how the field notes load. Each sample opens its file,
reads the whole of the episode's small arrays and their statistics, then picture by
picture, and is stacked with the others at the end.
"""

from __future__ import annotations

import json
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks import loader_set
from rdt.data.loader import Loader
from rdt.data.order import Order
from rdt.data.sample_source import SampleSource
from rdt.data.sampler import Sampler
from rdt.data.store import open_store
from rdt.spec.contract import LIBERO_RAW_VELOCITY

BATCH, HORIZON, SEED = 32, 64, 3
CAMERAS = ("agentview_rgb", "eye_in_hand_rgb")
SLOTS = [39, 40, 41, 42, 43, 44, 10]
CONTRACT = replace(LIBERO_RAW_VELOCITY, cameras=("agentview", "eye_in_hand"))
"""One fork's mapping: joints, fingers, raw actions."""
TRANSFORMS: dict[str, dict[str, Any]] = {
    "conditions": {"size": loader_set.SIZE},
    "resized": {"size": 384},
    "augmented": {"size": 384, "augmented": 0.5},
}
"""Noise of the state and dropped conditions alone, resized as well, augmented as well."""
Arrays = dict[str, np.ndarray[Any, Any]]
Place = tuple[Path, str, int]


def places(folder: Path) -> list[Place]:
    """File, demonstration and row of every sample, in the order of the store."""
    found = []
    for path in sorted(folder.glob("*.hdf5")):
        with h5py.File(path) as file:
            for number in range(len(file["data"])):
                rows = file[f"data/demo_{number}/actions"].shape[0]
                found += [(path, f"demo_{number}", row) for row in range(rows)]
    return found


def reference_sample(path: Path, demo: str, row: int) -> Arrays:
    """One sample, read in the field notes' manner."""
    with h5py.File(path, "r") as file:
        group = file["data"][demo]
        actions = group["actions"][:]
        joints, fingers = (group["obs"][name][:] for name in ("joint_states", "gripper_states"))
        proprio = np.concatenate([joints, fingers], axis=1)
        scales = proprio.std(axis=0), proprio.mean(axis=0), np.sqrt((proprio**2).mean(axis=0))
        assert len(scales) == 3, "computed for every sample there, and not used here"
        pictures = np.full((2, 2, loader_set.SIZE, loader_set.SIZE, 3), 127, np.uint8)
        for number, camera in enumerate(CAMERAS):
            dataset = group["obs"][camera]
            for moment, step in enumerate((row - 1, row)):
                if step >= 0:
                    pictures[moment, number] = dataset[step]
    chunk = actions[row : row + HORIZON]
    targets, state = np.zeros((HORIZON, 128), np.float32), np.zeros(128, np.float32)
    targets[: len(chunk), SLOTS] = chunk
    targets[len(chunk) :] = targets[len(chunk) - 1]
    state[:7] = joints[row]
    kept = fingers[row].astype(np.float32).astype(np.float64)  # float32 is what is kept of it
    state[10:12] = kept * (1 / 0.0943) + 0.04245 / 0.0943
    valid = np.arange(HORIZON) < len(chunk)
    return {"actions": targets, "valid": valid, "states": state, "pictures": pictures}


def reference(folder: Path, sampler: Sampler) -> Callable[[int], Arrays]:
    """Batch by number."""
    known = places(folder)

    def batch(number: int) -> Arrays:
        ids = np.sort(sampler.batch(number)).tolist()
        samples = [reference_sample(*known[sample]) for sample in ids]
        return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}

    return batch


def ours(folder: Path, sampler: Sampler) -> Callable[[int], Arrays]:
    """Batch by number; they must be asked for in order."""
    loader = Loader(
        SampleSource([open_store(folder)], CONTRACT, moments=2, horizon=HORIZON), sampler
    )

    def batch(number: int) -> Arrays:
        assert loader.taken == number * BATCH
        found = next(loader)
        return {key: getattr(found, key) for key in ("actions", "valid", "states", "pictures")}

    return batch


def transformed(folder: Path, sampler: Sampler, how: str) -> Callable[[int], Arrays]:
    """Batches of ours as the network gets them."""
    import torch

    from rdt.data.transforms import Transforms

    source = SampleSource([open_store(folder)], CONTRACT, moments=2, horizon=HORIZON)
    loader, spread, mean = Loader(source, sampler), source.state_spread(), np.zeros(128)
    transforms = Transforms(CONTRACT, SEED, **TRANSFORMS[how], noise_db=40.0, dropped=0.1)

    def batch(number: int) -> Arrays:
        assert loader.taken == number * BATCH
        found = transforms(next(loader), mean, spread, torch.device("cpu"))
        return {name: value.numpy() for name, value in found._asdict().items()}

    return batch


def digest(batch: Arrays) -> int:
    """Checksum over names, types, shapes and all bytes."""
    total = 0
    for key, values in sorted(batch.items()):
        total = zlib.crc32(f"{key} {values.dtype} {values.shape}".encode(), total)
        total = zlib.crc32(values.tobytes(), total)
    return total


def copying() -> float:
    """Microseconds of CPU for a sample's two pieces of 98,304 bytes, from anywhere in 256 MB."""
    source, piece = np.ones(1 << 28, np.uint8), 2 * loader_set.SIZE**2 * 3
    target = np.empty((2 * BATCH, piece), np.uint8)
    starts = np.random.default_rng(0).integers(0, len(source) - piece, 64 * 150).tolist()
    began = time.process_time()
    for number, start in enumerate(starts):
        target[number % len(target)] = source[start : start + piece]
    return (time.process_time() - began) / len(starts) * 2e6


def main() -> None:
    """``SIDE FOLDER warm|cold COMPARED WARM_UP BATCHES``: prints costs and checksums.

    SIDE: ``ours``, ``reference``, or ours with one of TRANSFORMS.
    """
    name, folder, how, *counts = sys.argv[1:]
    compared, before, batches = map(int, counts)
    samples = len(places(Path(folder)))
    sampler = Sampler(Order((samples,), SEED), BATCH, BATCH)
    if name in TRANSFORMS:
        batch = transformed(Path(folder), sampler, name)
    else:
        batch = {"ours": ours, "reference": reference}[name](Path(folder), sampler)
    if how == "cold":
        loader_set.evict(Path(folder))
    digests = [digest(batch(number)) for number in range(compared)]
    for number in range(compared, compared + before):
        batch(number)
    cpu, wall = time.process_time(), time.monotonic()
    for number in range(compared + before, compared + before + batches):
        batch(number)
    count = batches * BATCH
    costs = {
        "cpu_us": (time.process_time() - cpu) / count * 1e6,
        "samples_per_s": count / (time.monotonic() - wall),
        "digests": digests,
        "copying_us": copying(),
    }
    print(json.dumps(costs), flush=True)


if __name__ == "__main__":
    main()
