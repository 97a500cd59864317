"""One process of `benchmarks.data_index`: ``index``, ``list`` or ``first FOLDER RUN``."""

from __future__ import annotations

import json
import random
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rdt.data.index import Index, Member
from rdt.data.loader import Loader
from rdt.data.order import Order
from rdt.data.sample_source import SampleSource
from rdt.data.sampler import Sampler
from rdt.data.saved import open_saved
from rdt.spec.contract import LIBERO_VELOCITY

STEPS, LENGTHS, SEED = 10_000_000, (75, 235), 3
ASKED = 100_000
RANKS, RANK, MICRO, TAKEN = 8, 5, 32, 123_456 * 256
Rows = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
"""Episodes and rows (n, 2) of sample numbers (n,)."""


def lengths() -> list[int]:
    """Of episodes with ten million steps in all."""
    drawn = np.random.default_rng(SEED).integers(*LENGTHS, STEPS // LENGTHS[0]).tolist()
    found: list[int] = []
    left = STEPS
    while left:
        found.append(min(drawn[len(found)], left))
        left -= found[-1]
    return found


def index(episodes: list[int]) -> Rows:
    """Ours, and the first samples of a rank in the middle of an epoch."""
    found = Index([Member(np.cumsum(episodes), np.arange(sum(episodes)))])
    sampler = Sampler(Order(found.sizes, SEED), RANKS * MICRO, MICRO, RANKS)
    assert len(found.episodes(found.steps(sampler.part(TAKEN, RANK)))) == MICRO

    def rows(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        steps = found.steps(samples)
        numbers = found.episodes(steps)
        return np.stack([numbers, steps - found.starts[numbers]], 1)

    return rows


def listed(episodes: list[int]) -> Rows:
    """Every step an entry, in a shuffled order."""
    entries = [(number, row) for number, length in enumerate(episodes) for row in range(length)]
    order = list(range(len(entries)))
    random.Random(SEED).shuffle(order)
    assert len([entries[sample] for sample in order[TAKEN % STEPS :][:MICRO]]) == MICRO
    return lambda samples: np.array([entries[sample] for sample in samples.tolist()])


def memory(name: str) -> float:
    """Megabytes, as the kernel calls it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def measured(make: Callable[[list[int]], Rows]) -> dict[str, Any]:
    """CPU seconds and megabytes at the peak, of which the lengths themselves are none."""
    episodes = lengths()
    before, began = memory("VmRSS"), time.process_time()
    rows = make(episodes)
    cpu, peak = time.process_time() - began, memory("VmHWM") - before
    asked = np.random.default_rng(SEED + 1).integers(0, STEPS, ASKED)
    digest = zlib.crc32(np.asarray(rows(asked), np.int64).tobytes())
    return {"cpu_s": cpu, "mb": round(peak, 1), "digest": digest}


def first(folder: Path, run: Path) -> dict[str, Any]:
    """The first batch of a resumed run."""
    source = SampleSource([open_saved(run, folder)], LIBERO_VELOCITY)
    order = Order(source.index.sizes, SEED)
    with Loader(source, Sampler(order, RANKS * MICRO, MICRO, RANKS), RANK) as loader:
        loader.load_state_dict({"taken": TAKEN, "order": order.identity})
        batch = next(loader)
        told = {"at": time.monotonic(), "cpu_s": time.process_time()}
        digest = 0
        for values in batch:
            digest = zlib.crc32(np.asarray(values).tobytes(), digest)
    return told | {"digest": digest}


def main() -> None:
    """Prints one line of JSON."""
    name, *arguments = sys.argv[1:]
    if name == "first":
        told = first(*map(Path, arguments))
    else:
        told = measured({"index": index, "list": listed}[name])
    print(json.dumps(told))


if __name__ == "__main__":
    main()
