"""A buffer of prepared samples on disk, for data whose decoding is slower than training.

Chunk n holds the samples at positions n·samples … of the endless stream: a function of its
number, so that whoever makes it makes the same. Producers keep the next chunks of every
consumer there; a consumer says in a file of its own which chunk it wants next, and all
before are used. Nothing else is remembered: chunks and these files appear as a whole, so a
producer or consumer may be killed at any moment and started again.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError, UsageError, full_disk
from rdt.data.order import Order
from rdt.data.sample_source import SampleSource

PLAN = "buffer.json"
POLL_S = 0.2


@dataclass(frozen=True)
class Size:
    """``chunks`` of ``samples`` are kept for all ``consumers`` together.

    Episodes of fewer than ``shortest`` or more than ``longest`` steps are left out, as in
    the pre-training. Raises UsageError RDTL-D044 when a consumer would have no chunk.
    """

    chunks: int = 512
    samples: int = 512
    consumers: int = 1
    shortest: int = 32
    longest: int = 2048

    def __post_init__(self) -> None:
        if min(self.consumers, self.samples, self.chunks // max(self.consumers, 1)) < 1:
            raise UsageError(
                "RDTL-D044",
                "a buffer needs a chunk and a sample for each consumer",
                where=f"chunks {self.chunks}, samples {self.samples}, consumers {self.consumers}",
                why="a consumer without chunks would wait for ever",
                fix="use more chunks, or fewer consumers",
            )


class Producer:
    """Number ``worker`` of ``workers`` that fill ``folder`` with samples of ``source``.

    Use it in a ``with`` statement. Raises RefusedError RDTL-D044 when the folder is a
    buffer of something else, or when this worker runs already.
    """

    def __init__(
        self,
        folder: Path,
        source: SampleSource,
        size: Size,
        seed: int,
        worker: int = 0,
        workers: int = 1,
    ) -> None:
        self._folder, self._source, self._size = folder, source, size
        self._worker, self._workers = worker, workers
        self._eligible = _eligible(source, size)
        self._order = Order((len(self._eligible),), seed)
        _require_plan(folder, _plan(source, size, self._order))
        self._lock = (folder / f"producer_{worker}.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise _refused("this worker runs already", f"{folder}: producer {worker}") from error
        for path in folder.glob(".chunk_*.part"):  # what it left behind when it was killed
            if self._mine(int(path.name[7:16])):
                path.unlink()

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def _mine(self, number: int) -> bool:
        return number // self._size.consumers % self._workers == self._worker

    def fill_up(self) -> int:
        """Remove what is used and make what is missing; returns how many chunks were made.

        Raises RdtlError RDTL-G009 on a full disk, RDTL-D028 when the data have changed.
        """
        wanted = set(filter(self._mine, self._wanted()))
        there = {int(path.stem[6:]) for path in self._folder.glob("chunk_*.safetensors")}
        for number in filter(self._mine, there - wanted):
            place(self._folder, number).unlink(missing_ok=True)
        missing = sorted(wanted - there)
        if missing:
            self._source.require_unchanged()
        for number in missing:
            self._make(number)
        return len(missing)

    def run(self, stop: Callable[[], bool]) -> None:
        """Fill up, again and again, until ``stop`` says so."""
        while not stop():
            if self.fill_up() == 0:
                time.sleep(POLL_S)

    def _wanted(self) -> list[int]:
        size = self._size
        ahead = np.arange(size.chunks // size.consumers) * size.consumers
        starts = [_next_of(self._folder, consumer) for consumer in range(size.consumers)]
        return sorted(int(number) for start in starts for number in start + ahead)

    def _make(self, number: int) -> None:
        from safetensors.numpy import save

        count = self._size.samples
        positions = np.arange(number * count, (number + 1) * count)
        samples = self._eligible[self._order.at(positions)]
        batch = self._source.fill(samples, self._source.empty(count), int(positions[0])).batch
        try:
            with files.whole_file(place(self._folder, number)) as temporary:
                # Its own writing to a file leaves a file of another name when it is killed.
                temporary.write_bytes(save(batch._asdict()))
        except OSError as error:
            raise full_disk(error, "filling the buffer") or error from error


def place(folder: Path, number: int) -> Path:
    """The file of a chunk."""
    return folder / f"chunk_{number:09d}.safetensors"


def mark(folder: Path, consumer: int) -> Path:
    """The file in which a consumer says what it wants next."""
    return folder / f"consumer_{consumer}.json"


def read_plan(folder: Path) -> dict[str, Any]:
    """What the buffer consists of. Raises RdtlError RDTL-D014 when there is none."""
    try:
        plan: dict[str, Any] = files.read_json(folder / PLAN)
    except FileNotFoundError as error:
        raise RdtlError(
            "RDTL-D014",
            "there is no buffer of samples",
            where=str(folder / PLAN),
            why="producers write it before the first chunk",
            fix="start the producers of this buffer first",
        ) from error
    return plan


def _next_of(folder: Path, consumer: int) -> int:
    path = mark(folder, consumer)
    return int(files.read_json(path)["next"]) if path.is_file() else consumer


def _eligible(source: SampleSource, size: Size) -> NDArray[np.int64]:
    """Numbers of the samples of episodes that are neither too short nor too long."""
    samples = np.arange(sum(source.index.sizes))
    lengths = source.index.ends - source.index.starts
    fits = (lengths >= size.shortest) & (lengths <= size.longest)
    found = samples[fits[source.index.episodes(source.index.steps(samples))]]
    if len(found):
        return found
    raise UsageError(
        "RDTL-D044",
        "no episode is within the buffer's limits",
        where=f"limits {size.shortest} and {size.longest}, "
        f"episodes of {lengths.min()} to {lengths.max()} steps",
        why="there would be nothing to train on",
        fix="change the limits, or read the data without a buffer",
    )


def _plan(source: SampleSource, size: Size, order: Order) -> dict[str, Any]:
    lengths = source.index.ends - source.index.starts
    out = ((lengths < size.shortest) | (lengths > size.longest)).sum()
    plan = {
        **asdict(size),
        "order": order.identity,
        "contract": asdict(source.contract),
        "moments": source.moments,
        "horizon": source.horizon,
        "picture_size": source.picture_size,
        "episodes": len(lengths),
        "episodes_left_out": int(out),
        "files": source.files(),
    }
    normal: dict[str, Any] = json.loads(json.dumps(plan))
    return normal


def _require_plan(folder: Path, plan: dict[str, Any]) -> None:
    if files.publish_once(folder / PLAN, plan):
        return
    there = read_plan(folder)
    others = [key for key in plan if plan[key] != there.get(key)]
    if others:
        values = "; ".join(
            f"{key}: {there.get(key)} there, {plan[key]} now"[:200] for key in others
        )
        raise _refused("the folder is the buffer of something else", f"{folder}: {values}")


def _refused(what: str, where: str) -> RefusedError:
    return RefusedError(
        "RDTL-D044",
        what,
        where=where,
        why="samples of two kinds would be mixed, or made twice",
        fix="use another folder for this buffer, or end the other process",
    )


def bytes_needed(source: SampleSource, size: Size) -> int:
    """What a full buffer takes on disk."""
    one = sum(values.nbytes for values in source.empty(1).batch)
    return one * size.samples * size.chunks
