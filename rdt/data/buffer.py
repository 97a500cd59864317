"""A buffer of prepared samples on disk, for data whose decoding is slower than training.

Chunk n holds the samples at positions n·samples … of an :class:`rdt.data.order.Order`: it
is a function of its number, so whoever makes it makes the same. Each rank of a training
says in a file of its own in which chunk it reads; producers keep that one and the next
ones there, and remove those before. Nothing else is remembered, and chunks and these files
appear as a whole: producers and ranks may be killed at any moment and started again.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError, UsageError, full_disk
from rdt.data.order import Order
from rdt.data.sample_source import SampleSource
from rdt.spec.contract import Contract

PLAN, SPREAD, LOCK = "buffer.json", "state_spread.npy", "producers.lock"
Stored = dict[str, Any]


def stored(contract: Contract) -> Stored:
    """Which part of each of a batch's arrays is not the same in all samples, as an index."""
    return {
        "samples": ...,
        "episodes": ...,
        "actions": np.s_[..., list(contract.action_slots)],
        "valid": ...,
        "states": np.s_[..., list(contract.state_slots)],
        "pictures": np.s_[:, :, [n for n, name in enumerate(contract.cameras) if name]],
        "present": ...,
    }


def record(contract: Contract, moments: int, horizon: int, pixels: int) -> np.dtype[np.void]:
    """One sample in a chunk: the :func:`stored` parts of a :class:`rdt.data.batch.Batch`."""
    cameras = len(contract.cameras)
    real = sum(bool(name) for name in contract.cameras)
    return np.dtype(
        [
            ("samples", "<i8"),
            ("episodes", "<i8"),
            ("actions", "<f4", (horizon, len(contract.action_slots))),
            ("valid", "?", (horizon,)),
            ("states", "<f4", (len(contract.state_slots),)),
            ("pictures", "u1", (moments, real, pixels, pixels, 3)),
            ("present", "?", (moments, cameras)),
        ]
    )


class Producer:
    """Fills ``folder`` with ``chunks`` of ``samples`` of ``source`` in ``order``.

    Raises UsageError RDTL-D044 when there are too few for one to be read while the next
    is made.
    """

    def __init__(
        self,
        folder: Path,
        source: SampleSource,
        order: Order,
        chunks: int,
        samples: int,
    ) -> None:
        if chunks < 2 or samples < 1:
            raise UsageError(
                "RDTL-D044",
                "a buffer needs two chunks of a sample at least",
                where=f"chunks {chunks}, samples {samples}",
                why="one is read while the next one is made",
                fix="make the chunks smaller, and use more of them",
            )
        self._folder, self._source, self._order = folder, source, order
        self._chunks, self._samples = chunks, samples
        self._record = record(source.contract, source.moments, source.horizon, source.picture_size)
        self.bytes = self._record.itemsize * samples * chunks
        """What the whole buffer takes on disk."""

    def publish(self) -> None:
        """Say what the buffer consists of; RefusedError RDTL-D044 when it is another one."""
        source = self._source
        plan = {
            "chunks": self._chunks,
            "samples": self._samples,
            "order": self._order.identity,
            "contract": source.contract.to_dict(),
            **source.identity(),
            "picture_size": source.picture_size,
            "instructions": source.instructions,
        }
        if not (self._folder / PLAN).is_file():
            _save(self._folder / SPREAD, source.state_spread())
        if not files.publish_once(self._folder / PLAN, plan):
            _require_same(self._folder, read_plan(self._folder), plan)

    def make_one(self, worker: int = 0, workers: int = 1) -> bool:
        """Remove what is used and make the next chunk that is missing, if any.

        Of ``workers`` processes each does so for chunks of its own. Raises RdtlError
        RDTL-G009 on a full disk, RDTL-D028 when the data have changed.
        """
        first = min(marks(self._folder).values(), default=0)
        there = {number for number in chunks(self._folder) if number % workers == worker}
        wanted = {n for n in range(first, first + self._chunks) if n % workers == worker}
        for number in there - wanted:
            place(self._folder, number).unlink(missing_ok=True)
        missing = wanted - there
        if missing:
            self._source.require_unchanged()
            _save(place(self._folder, min(missing)), self._chunk(min(missing)))
        return bool(missing)

    def _chunk(self, number: int) -> NDArray[np.void]:
        first = number * self._samples
        samples = self._order.at(np.arange(first, first + self._samples))
        batch = self._source.fill(samples, self._source.empty(len(samples)), first).batch
        rows = np.empty(self._samples, self._record)
        for name, part in stored(self._source.contract).items():
            rows[name][batch.positions - first] = getattr(batch, name)[part]
        return rows


def _save(path: Path, values: NDArray[Any]) -> None:
    try:
        with files.whole_file(path) as temporary, temporary.open("wb") as file:
            # `numpy.save` does not say when it is the disk that is full.
            header = np.lib.format.header_data_from_array_1_0(values)
            np.lib.format.write_array_header_1_0(file, header)
            file.write(values.view(np.uint8))
    except OSError as error:
        error.filename = error.filename or str(path)
        raise full_disk(error, "filling the buffer") or error from error


@contextmanager
def producing(folder: Path) -> Iterator[int]:
    """The only one who fills ``folder``; yields the descriptor that holds the right to.

    Removes what was half-written when an earlier one was killed. Raises RefusedError
    RDTL-D044 when another one fills it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError(
                "RDTL-D044",
                "this buffer is being filled already",
                where=str(folder / LOCK),
                why="every chunk would be made twice",
                fix="end the other `rdtl data buffer`, or let it do the work",
            ) from error
        for path in folder.glob(".*.part"):
            if not path.name.startswith(".consumer_"):  # a rank may be writing it
                path.unlink()
        yield lock.fileno()


def place(folder: Path, number: int) -> Path:
    """The file of a chunk."""
    return folder / f"chunk_{number:09d}.npy"


def chunks(folder: Path) -> list[int]:
    """Numbers of the chunks that are there."""
    return [int(path.stem[6:]) for path in folder.glob("chunk_*.npy")]


def mark(folder: Path, rank: int) -> Path:
    """The file in which a rank says in which chunk it reads."""
    return folder / f"consumer_{rank}.json"


def marks(folder: Path) -> dict[int, int]:
    """Chunks by rank."""
    found = {}
    for path in folder.glob("consumer_*.json"):
        with suppress(FileNotFoundError):  # a run with fewer ranks has just begun
            found[int(path.stem[9:])] = int(files.read_json(path)["chunk"])
    return found


def read_plan(folder: Path) -> dict[str, Any]:
    """What the buffer consists of. Raises RdtlError RDTL-D014 when there is none."""
    try:
        plan: dict[str, Any] = files.read_json(folder / PLAN)
    except FileNotFoundError as error:
        raise RdtlError(
            "RDTL-D014",
            "there is no buffer of samples",
            where=str(folder / PLAN),
            why="its producers write it before the first chunk",
            fix="run `rdtl data buffer` first",
        ) from error
    return plan


def _require_same(folder: Path, there: dict[str, Any], now: dict[str, Any]) -> None:
    others = [key for key in now if now[key] != there.get(key)]
    if others:
        values = (f"{key}: {there.get(key)} there, {now[key]} now"[:200] for key in others)
        raise RefusedError(
            "RDTL-D044",
            "the folder is the buffer of something else",
            where=f"{folder}: {'; '.join(values)}",
            why="samples of two kinds would be mixed",
            fix="use another folder for this buffer, or remove the older one",
        )
