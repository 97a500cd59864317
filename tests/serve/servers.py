"""Servers for tests: ours in a thread, ours as a program, and one that is not ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from rdt.policy.rdt import RdtPolicy
from rdt.serve import server
from tests.rdt import small_policy
from tests.rdt.test_policy_of_a_run import SIZE

ROOT = Path(__file__).parents[2]
INSTRUCTION = small_policy.INSTRUCTIONS[0]


@contextlib.contextmanager
def ours(policy: RdtPolicy, **door: Any) -> Iterator[str]:
    """Our server in a thread of this process, on a free port; yields its URI."""
    loop, stop, started = asyncio.new_event_loop(), asyncio.Event(), Future[str]()

    async def until_stopped() -> None:
        try:
            opened = server.serving(policy, server.Door(**{"port": 0, **door}), INSTRUCTION)
            async with opened as (uri, _):
                started.set_result(uri)
                await stop.wait()
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=loop.run_until_complete, args=[until_stopped()])
    thread.start()
    try:
        yield started.result()
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def environment() -> dict[str, str]:
    """That of a command of this working tree."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@contextlib.contextmanager
def program(folder: Path, *options: str, port: int = 0) -> Iterator[tuple[str, Any]]:
    """``rdtl serve FOLDER``; yields its URI and its process."""
    argv = [sys.executable, "-P", "-m", "launcher", "serve", str(folder), "--port", str(port)]
    with subprocess.Popen(
        [*argv, "--instruction", INSTRUCTION, *options],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            lines = iter(process.stdout.readline, "")
            yield next(line for line in lines if line.startswith("listening")).split()[-1], process
        finally:
            process.kill()


Behaviour = Callable[[dict[str, Any]], Any]


@contextlib.contextmanager
def foreign(
    answer: Behaviour, metadata: Any = None, port: int = 0
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An openpi server that shares no code with us; yields its URI and what it was asked.

    ``answer`` makes the reply: a map of plain values and arrays, a text (openpi's way to
    say that something went wrong), or None to end the connection.
    """
    asked: list[dict[str, Any]] = []

    def talk(connection: ServerConnection) -> None:
        connection.send(msgpack.packb({} if metadata is None else metadata))
        with contextlib.suppress(ConnectionClosed):
            for data in connection:
                asked.append(msgpack.unpackb(data, object_hook=_array))
                reply = answer(asked[-1])
                if reply is None:
                    return
                connection.send(reply if isinstance(reply, str) else _packed(reply))

    with serve(talk, "127.0.0.1", port, compression=None, max_size=None) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{listening.socket.getsockname()[1]}", asked
        finally:
            listening.shutdown()
            thread.join()


def _array(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" not in value:
        return value
    return np.ndarray(tuple(value[b"shape"]), value[b"dtype"], bytearray(value[b"data"]))


def _packed(reply: dict[str, Any]) -> bytes:
    def plain(value: np.ndarray) -> dict[bytes, Any]:
        kind = {b"dtype": value.dtype.str, b"shape": list(value.shape)}
        return {b"__ndarray__": True, b"data": value.tobytes("C"), **kind}

    data: bytes = msgpack.packb(reply, default=plain)
    return data


def observation(seed: int, first: bool = False, size: int = SIZE) -> Any:
    """What is seen at step ``seed``, in pictures of another size."""
    small = small_policy.observation(seed, first=first)
    before = None if first else small_policy.pictures(seed - 1, size)
    return replace(small, pictures=small_policy.pictures(seed, size), previous=before)
