"""Batches at the speed of memory, read ahead by a thread into buffers that are used again.

Worker processes would be slower for pictures that lie raw in their files: passing six
megabytes a batch through shared memory costs more than reading them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from launcher.core.errors import RefusedError
from rdt.data.batch import Batch, Buffer
from rdt.data.buffered import BufferedSource
from rdt.data.sample_source import SampleSource
from rdt.data.sampler import Sampler

CHECK_EVERY = 64  # batches: what writes to the data behind our back is noticed that late


class Loader:
    """The batches of one rank, endlessly; use it in a ``with`` statement.

    The arrays of a batch are used again as soon as the next one is asked for: upload or
    copy them before. ``taken``: samples that all ranks were given so far.
    """

    def __init__(
        self, source: SampleSource | BufferedSource, sampler: Sampler, rank: int = 0
    ) -> None:
        source.require_unchanged()
        self._source, self._sampler, self._rank = source, sampler, rank
        self._free = deque(source.empty(sampler.micro_batch) for _ in range(2))
        self._shown: Buffer | None = None
        self._coming: deque[Future[Buffer]] = deque()
        self._asked = self.taken = 0
        self._pool = ThreadPoolExecutor(1, "loader")

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch. Raises what reading it raised, RDTL-D028 when a file has changed."""
        if self._shown is not None:
            self._free.append(self._shown)
        while self._free:
            self._coming.append(self._pool.submit(self._fill, self._asked, self._free.popleft()))
            self._asked += self._sampler.stride
        self._shown = self._coming.popleft().result()
        self.taken += self._sampler.stride
        return self._shown.batch

    def _fill(self, taken: int, buffer: Buffer) -> Buffer:
        if taken // self._sampler.stride % CHECK_EVERY == 0:
            self._source.require_unchanged()
        samples = self._sampler.part(taken, self._rank)
        return self._source.fill(samples, buffer, taken + self._rank * len(samples))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON; the number of ranks and the batch may change."""
        return {"taken": self.taken, "order": self._sampler.order.identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the last batch that was taken; before the first one is.

        Raises RefusedError RDTL-D029 when the samples or their order are others.
        """
        mine, theirs = self._sampler.order.identity, state["order"]
        if mine != theirs:
            raise RefusedError(
                "RDTL-D029",
                "the samples are not those of the run that is resumed",
                where="; ".join(
                    f"{key}: {theirs.get(key)} before, {mine[key]} now"
                    for key in mine
                    if theirs.get(key) != mine[key]
                ),
                why="some would be shown twice in an epoch, and others never",
                fix="resume with the data sets, weights and seed of that run, or start a new one",
            )
        assert not self._coming, "batches of another place are on their way"
        self._asked = self.taken = state["taken"]
