"""The consumers' side of :mod:`rdt.data.buffer`; they need no access to the data themselves."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from launcher.core import files
from launcher.core.errors import RdtlError, UsageError
from rdt.data import buffer
from rdt.data.batch import Batch

PATIENCE_S = 600.0


class Consumer:
    """Batches of ``size`` of consumer ``number``; use it in a ``with`` statement.

    Consumer r of R takes the chunks r, r + R, …, so that all together see every position of
    the stream once. ``taken``: samples that it gave out. Raises RdtlError RDTL-D014 when
    there is no buffer, UsageError RDTL-D044 for a number or size that does not fit it.
    """

    def __init__(
        self, folder: Path, size: int, number: int = 0, patience_s: float = PATIENCE_S
    ) -> None:
        self._plan = buffer.read_plan(folder)
        self._folder, self._size, self._number = folder, size, number
        self._patience_s = patience_s
        self.taken = 0
        self._coming: Future[Batch] | None = None
        self._chunk: Batch | None = None
        self._pool = ThreadPoolExecutor(1, "buffer")
        if self._plan["samples"] % size or not 0 <= number < self._plan["consumers"]:
            raise UsageError(
                "RDTL-D044",
                "this consumer does not fit the buffer",
                where=f"{folder}: consumer {number} with batches of {size}; the buffer has "
                f"{self._plan['consumers']} consumers and chunks of {self._plan['samples']}",
                why="chunks are dealt out among a fixed number of consumers, in whole batches",
                fix="use a batch that divides the chunk, or make a buffer for these consumers",
            )

    def __enter__(self) -> Consumer:
        return self

    def __exit__(self, *_: object) -> None:
        self._patience_s = 0.0  # ends a thread that waits
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Consumer:
        return self

    def __next__(self) -> Batch:
        """The next batch, in the order of the stream; its arrays stay as they are.

        Raises RdtlError RDTL-D045 when no producer makes the chunk in time.
        """
        turn, row = divmod(self.taken, self._plan["samples"])
        if self._chunk is None:
            coming = self._coming or self._pool.submit(self._load, turn)
            self._chunk, self._coming = coming.result(), None
        rows = np.argsort(self._chunk.positions)[row : row + self._size]
        batch = Batch(*(values[rows] for values in self._chunk))
        self.taken += self._size
        if row + self._size == self._plan["samples"]:
            self._chunk = None
            self._say(turn + 1)
        elif self._coming is None:
            self._coming = self._pool.submit(self._load, turn + 1)
        return batch

    def _load(self, turn: int) -> Batch:
        from safetensors.numpy import load_file

        path = buffer.place(self._folder, self._chunk_number(turn))
        began = time.monotonic()
        while not path.is_file():
            if time.monotonic() - began > self._patience_s:
                raise _starved(path, self._patience_s)
            time.sleep(buffer.POLL_S)
        return Batch(**load_file(path))

    def _chunk_number(self, turn: int) -> int:
        return int(self._number + turn * self._plan["consumers"])

    def _say(self, turn: int) -> None:
        """All chunks before that of ``turn`` are used."""
        path = buffer.mark(self._folder, self._number)
        files.write_json(path, {"next": self._chunk_number(turn)})

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON."""
        return {"taken": self.taken, "order": self._plan["order"]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the last batch that was taken; chunks used since are made again.

        Raises UsageError RDTL-D044 when the state is of another buffer.
        """
        if state["order"] != self._plan["order"] or state["taken"] % self._size:
            raise UsageError(
                "RDTL-D044",
                "this state is not one of this buffer",
                where=f"{self._folder}: {state['taken']} samples of {state['order']}",
                why="some samples would be shown twice in an epoch, and others never",
                fix="resume with the buffer and the batch of that run, or start a new one",
            )
        assert self._coming is None and self._chunk is None, "batches are on their way"
        self.taken = int(state["taken"])
        self._say(self.taken // self._plan["samples"])


def _starved(path: Path, patience_s: float) -> RdtlError:
    return RdtlError(
        "RDTL-D045",
        "no producer has made the next chunk of the buffer",
        where=f"{path}: not there after {patience_s:.0f} s",
        why="the producers have ended, are too slow, or their disk is full",
        fix="look at the producers' log and start them again; the run goes on where it was",
    )
