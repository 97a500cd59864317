"""Requests that wait together are computed together, and nobody else pays for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from rdt.serve.batcher import Batcher, Compute
from rdt.serve.exact import Asked
from tests.rdt import small_policy


def asked(number: int) -> Asked:
    return Asked(small_policy.observation(1), "episode", number)


@contextlib.asynccontextmanager
async def working(
    compute: Compute, clients: int, limit: int = 4, wait_s: float = 0.2
) -> AsyncIterator[Batcher]:
    """A batcher at work for so many clients."""
    batcher = Batcher(compute, limit, wait_s)
    with contextlib.ExitStack() as stack:
        for _ in range(clients):
            stack.enter_context(batcher.client())
        task = asyncio.create_task(batcher.run())
        yield batcher
        task.cancel()
        batcher.close()


def numbers(batch: Sequence[Asked]) -> list[np.ndarray]:
    """Each request's own query number as its chunk."""
    return [np.full((1, 7), one.query, np.float32) for one in batch]


def test_one_batch_for_all_who_wait_and_each_its_own_answer() -> None:
    async def main() -> None:
        async with working(numbers, clients=6) as batcher:
            answers = await asyncio.gather(*[batcher.ask(asked(i)) for i in range(6)])
        assert [answer.actions[0, 0] for answer in answers] == list(range(6))
        assert [answer.mates for answer in answers] == [4, 4, 4, 4, 2, 2]
        assert (batcher.requests, batcher.batches) == (6, 2)

    asyncio.run(main())


@pytest.mark.parametrize(("clients", "waits"), [(1, False), (2, True)])
def test_nobody_waits_for_mates_that_cannot_come(clients: int, waits: bool) -> None:
    async def main() -> None:
        async with working(numbers, clients) as batcher:
            began = time.monotonic()
            await batcher.ask(asked(0))
            assert (time.monotonic() - began >= 0.2) == waits

    asyncio.run(main())


def test_a_client_that_leaves_is_not_waited_for() -> None:
    async def main() -> None:
        async with working(numbers, clients=1, wait_s=30) as batcher:
            with batcher.client():
                waiting = asyncio.create_task(batcher.ask(asked(0)))
                await asyncio.sleep(0.05)
                assert not waiting.done()
            await asyncio.wait_for(waiting, 5)

    asyncio.run(main())


def test_a_bad_request_does_not_take_its_mates_along() -> None:
    def compute(batch: Sequence[Asked]) -> list[np.ndarray]:
        if any(one.query == 2 for one in batch):
            raise ValueError("two")
        return numbers(batch)

    async def main() -> None:
        async with working(compute, clients=4) as batcher:
            found = await asyncio.gather(
                *[batcher.ask(asked(i)) for i in range(4)], return_exceptions=True
            )
        assert [type(one).__name__ for one in found] == ["Answer", "Answer", "ValueError", "Answer"]

    asyncio.run(main())


def test_the_loop_runs_while_the_network_computes() -> None:
    go = threading.Event()

    def compute(batch: Sequence[Asked]) -> list[np.ndarray]:
        assert go.wait(10)  # set by the loop, which must not stand still
        return numbers(batch)

    async def main() -> None:
        async with working(compute, clients=2, limit=1) as batcher:
            first = asyncio.create_task(batcher.ask(asked(0)))
            await asyncio.sleep(0.05)
            second = asyncio.create_task(batcher.ask(asked(1)))
            await asyncio.sleep(0.05)
            assert not first.done()
            go.set()
            assert [(await one).actions[0, 0] for one in (first, second)] == [0, 1]

    asyncio.run(main())


def test_nobody_waits_for_a_batcher_that_ended() -> None:
    """Whether it was asked to end or broke."""

    async def main() -> None:
        batcher = Batcher(numbers, limit=4, wait_s=30)
        task = asyncio.create_task(batcher.run())
        with batcher.client(), batcher.client():
            waiting = asyncio.create_task(batcher.ask(asked(0)))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(waiting, 5)
        batcher.close()

    asyncio.run(main())
