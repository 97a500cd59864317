"""Many clients, one network: requests that wait at the same time are computed together.

The network runs in a thread of its own, so the event loop always answers pings, greets
new clients and takes requests in while a batch is being computed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from rdt.serve.exact import Asked

T = TypeVar("T")


class Answer(NamedTuple):
    """A chunk (H, 7) float32; its batch took ``infer_s`` for ``mates`` requests."""

    actions: NDArray[np.float32]
    infer_s: float
    mates: int


Compute = Callable[[Sequence[Asked]], Sequence[NDArray[np.float32]]]


@dataclass(frozen=True)
class _Waiting:
    asked: Asked
    arrived: float
    answer: asyncio.Future[Answer] = field(default_factory=asyncio.Future)


class Batcher:
    """Groups of at most ``limit`` requests, of which the first waited at most ``wait_s``.

    Nobody waits for mates that cannot come: a client asks one thing at a time, so when
    every client is waiting the batch is complete. ``requests`` and ``batches`` count.
    """

    def __init__(self, compute: Compute, limit: int, wait_s: float) -> None:
        self._compute, self._limit, self._wait_s = compute, limit, wait_s
        self._thread = ThreadPoolExecutor(1, "policy")
        self._waiting: list[_Waiting] = []
        self._changed = asyncio.Event()
        self._clients = 0
        self.requests = self.batches = 0

    @contextlib.contextmanager
    def client(self) -> Iterator[None]:
        """While inside, one client more may ask."""
        self._clients += 1
        try:
            yield
        finally:
            self._clients -= 1
            self._changed.set()

    async def ask(self, asked: Asked) -> Answer:
        """The answer to one request; raises what the policy raises for it."""
        waiting = _Waiting(asked, time.monotonic())
        self._waiting.append(waiting)
        self._changed.set()
        return await waiting.answer

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """The result of a call in the thread that belongs to the network."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, *arguments)

    async def run(self) -> None:
        """Answer requests until cancelled; whoever waits then is cancelled too."""
        try:
            while True:
                await self._gather()
                await self._answer(self._waiting[: self._limit])
                self._waiting = [one for one in self._waiting if not one.answer.done()]
        finally:
            for one in self._waiting:
                one.answer.cancel()

    def close(self) -> None:
        """Wait for what the network computes now, and end its thread."""
        self._thread.shutdown()

    async def _gather(self) -> None:
        """Until there is a batch that is worth computing."""
        while not self._waiting:
            await self._change()
        while len(self._waiting) < min(self._limit, self._clients):
            left = self._waiting[0].arrived + self._wait_s - time.monotonic()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._change()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _answer(self, batch: list[_Waiting]) -> None:
        began = time.monotonic()
        results = await self.in_thread(self._each, [waiting.asked for waiting in batch])
        seconds = time.monotonic() - began
        self.requests += len(batch)
        self.batches += 1
        for waiting, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                waiting.answer.set_exception(result)
            else:
                waiting.answer.set_result(Answer(result, seconds, len(batch)))

    def _each(self, asked: Sequence[Asked]) -> list[NDArray[np.float32] | Exception]:
        """A chunk or an error for every request: a bad one does not take its mates along."""
        try:
            return list(self._compute(asked))
        except Exception as error:
            if len(asked) == 1:
                return [error]
        return [result for one in asked for result in self._each([one])]
