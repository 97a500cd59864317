"""Samples out of a buffer (:mod:`rdt.data.buffer`), as if they came from the data themselves.

A loader reads it instead of a :class:`rdt.data.sample_source.SampleSource`, in the same
order, and gives the same batches, bit for bit. The data themselves are not needed.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError, UsageError
from rdt.data import batch as batches
from rdt.data import buffer
from rdt.data.batch import Buffer, Ints
from rdt.data.order import Order
from rdt.data.sample_source import SampleSource
from rdt.spec.contract import Contract

POLL_S = 0.1
PATIENCE_S = 600.0


class BufferedSource:
    """What ``rank`` of ``ranks`` reads from ``folder``; ``order`` is that of the samples.

    ``instructions``: the words of each episode; ``lengths``: the shortest and longest episode
    that samples are taken of. Raises RdtlError RDTL-D014 when there is no
    buffer, RefusedError RDTL-D044 when its contract is another one.
    """

    def __init__(
        self,
        folder: Path,
        contract: Contract,
        rank: int = 0,
        ranks: int = 1,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._plan = plan = buffer.read_plan(folder)
        self.lengths: tuple[int, int] = tuple(plan["lengths"])
        if plan["contract"] != contract.to_dict():
            raise self._refused(folder, f"contract {plan['contract']['name']}, not {contract.name}")
        self._folder, self.contract, self._rank, self._ranks = folder, contract, rank, ranks
        order = plan["order"]
        self.order = Order(
            tuple(order["sizes"]), order["seed"], tuple(order["weights"]), order["kind"]
        )
        self.moments, self.horizon = plan["moments"], plan["horizon"]
        self.picture_size, self.instructions = plan["picture_size"], plan["instructions"]
        self._record = buffer.record(contract, self.moments, self.horizon, self.picture_size)
        self._stored = buffer.stored(contract)
        self._samples, self._patience_s = plan["samples"], patience_s
        self._chunk: tuple[int, NDArray[np.void]] | None = None
        self._marked: int | None = None
        if rank == 0:  # of an earlier run with more ranks
            for other in buffer.marks(folder):
                if other >= ranks:
                    buffer.mark(folder, other).unlink(missing_ok=True)

    def require_stands_for(self, source: SampleSource, order: Order) -> None:
        """Raise RefusedError RDTL-D044 unless it holds the samples of ``source`` in ``order``."""
        for key, value in {"order": order.identity, **source.identity()}.items():
            if self._plan.get(key) != value:
                text = f"{key} {self._plan.get(key)}, the run has {value}"
                raise self._refused(self._folder, text if len(text) < 400 else f"other {key}")

    def empty(self, size: int) -> Buffer:
        """A buffer of ``size`` samples for :meth:`fill`.

        Raises UsageError RDTL-D044 when one batch of all ranks is too large for the chunks
        that are kept: some ranks would wait for chunks that others do not let go.
        """
        kept = (self._plan["chunks"] - 1) * self._samples
        if size * self._ranks > kept:
            raise UsageError(
                "RDTL-D044",
                "the buffer is too small for these batches",
                where=f"{self._folder}: {self._plan['chunks']} chunks of {self._samples}; "
                f"{self._ranks} ranks with batches of {size}",
                why="all ranks read around one place, and wait for each other",
                fix="make a buffer of more chunks",
            )
        return batches.empty(size, self.horizon, self.moments, self.contract, self.picture_size)

    def state_spread(self) -> NDArray[np.float64]:
        """As of :meth:`rdt.data.sample_source.SampleSource.state_spread`."""
        found: NDArray[np.float64] = np.load(self._folder / buffer.SPREAD, allow_pickle=False)
        return found

    def fill(self, samples: Ints, out: Buffer, position: int = 0) -> Buffer:
        """Fill ``out`` with ``samples`` (B,), which stand at ``position`` and behind it.

        Waits for the chunk. Raises RdtlError RDTL-D045 when nobody makes it in time,
        RDTL-D062 for one that is damaged, RefusedError RDTL-D044 when it has other samples.
        """
        self._say(position // self._samples)
        order = np.argsort(samples, kind="stable")
        rows = self._rows(position, len(samples))[order]
        np.add(order, position, out=out.batch.positions)
        for name, part in self._stored.items():
            getattr(out.batch, name)[part] = rows[name]
        if not np.array_equal(out.batch.samples, samples[order]):
            raise self._refused(self._folder, f"another order of samples at position {position}")
        return out

    def require_unchanged(self) -> None:
        """Raise RefusedError RDTL-D044 when there is another buffer in the folder by now."""
        if buffer.read_plan(self._folder) != self._plan:
            raise self._refused(self._folder, "it was made anew")

    def close(self) -> None:
        """End whoever waits for a chunk."""
        self._patience_s = 0.0

    def _say(self, number: int) -> None:
        """All chunks before ``number`` may go."""
        if number != self._marked:
            files.write_json(buffer.mark(self._folder, self._rank), {"chunk": number})
            self._marked = number

    def _rows(self, position: int, count: int) -> NDArray[np.void]:
        first, last = position // self._samples, (position + count - 1) // self._samples
        parts = []
        for number in range(first, last + 1):
            start = position - number * self._samples
            parts.append(self._open(number)[max(start, 0) : start + count])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _open(self, number: int) -> NDArray[np.void]:
        """The rows of a chunk, mapped."""
        if self._chunk is None or self._chunk[0] != number:
            self._chunk = None
            self._chunk = number, self._wait(buffer.place(self._folder, number))
        return self._chunk[1]

    def _wait(self, path: Path) -> NDArray[np.void]:
        began = time.monotonic()
        while True:
            try:
                rows: NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
                if rows.dtype == self._record and len(rows) == self._samples:
                    return rows
                raise _damaged(path, f"{len(rows)} rows of {rows.dtype.itemsize} bytes")
            except FileNotFoundError:
                if time.monotonic() - began > self._patience_s:
                    raise _starved(path, self._patience_s) from None
                time.sleep(POLL_S)
            except (ValueError, EOFError) as error:
                raise _damaged(path, str(error)) from error

    @staticmethod
    def _refused(folder: Path, what: str) -> RefusedError:
        return RefusedError(
            "RDTL-D044",
            "this buffer is not the one that is wanted",
            where=f"{folder}: {what}",
            why="the network would learn from other samples than the run says",
            fix="make a buffer with the data, contract and seed of this run",
        )


def _starved(path: Path, patience_s: float) -> RdtlError:
    return RdtlError(
        "RDTL-D045",
        "no producer has made the next chunk of the buffer",
        where=f"{path}: not there after {patience_s:.0f} s",
        why="the producers have ended, are too slow, or their disk is full",
        fix="run `rdtl data buffer` with the same options again; the run goes on where it was",
    )


def _damaged(path: Path, what: str) -> RdtlError:
    return RdtlError(
        "RDTL-D062",
        "a chunk of the buffer cannot be read",
        where=f"{path}: {what}",
        why="it was written as a whole, so the storage has damaged it",
        fix="remove this file: the producers make it again",
    )
