"""The serving side: a policy, warm, behind one port for openpi's clients and our evaluation."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from websockets.asyncio.server import Server as Listening
from websockets.asyncio.server import serve

from launcher.core.errors import UsageError
from rdt.policy.rdt import RdtPolicy, Request
from rdt.serve import exact, openpi
from rdt.serve.agreement import Agreement
from rdt.serve.batcher import Batcher, Compute
from rdt.serve.desk import Desk
from rdt.serve.exact import Asked

LOOPBACK = ("127.0.0.1", "::1", "localhost")
LARGEST = 64 * 2**20
"""Bytes of a request; four pictures of 1024 pixels have 13 million."""


@dataclass(frozen=True)
class Door:
    """Where the server listens, who may come in, and how long a request waits for mates.

    Raises UsageError RDTL-E057 for an address that others can reach without a token.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    wait_s: float = 0.005

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and not self.token:
            raise _open_to_all(self.host)


def metadata(policy: RdtPolicy) -> dict[str, Any]:
    """What a client is told first: all on which an answer depends besides the request."""
    card, contract = policy.card, policy.contract
    like = next(policy.network.parameters())
    return {
        **openpi.CONVENTIONS,
        "protocol": exact.PROTOCOL,
        "policy": "rdt",
        "checkpoint": card.weights_sha256[:12],
        "data_contract": f"{contract.name} {contract.digest()}",
        "action_horizon": card.horizon,
        "picture_size": card.camera_size,
        "sees_previous": policy.sees_previous,
        "eats_joints": eats_joints(policy),
        "batching": policy.batching,
        "rows": policy.rows,
        "seed": policy.seed,
        "dtype": str(like.dtype).removeprefix("torch."),
        "device": str(like.device),
        "threads": torch.get_num_threads(),
    }


def eats_joints(policy: RdtPolicy) -> bool:
    """Whether the contract's state holds joint angles, which openpi's LIBERO wire has not."""
    return any(part.source == "joint_pos" for part in policy.contract.state)


def chunks(policy: RdtPolicy, asked: Sequence[Asked]) -> NDArray[np.float32]:
    """Chunks (n, H, 7) of n queries."""
    return policy.chunks(
        [Request(one.observation, one.episode, one.query) for one in asked]
    ).actions


def warm_up(policy: RdtPolicy, instruction: str) -> None:
    """Compute what the first clients will ask for: one row, and a whole batch.

    Kernels are chosen, compiled and recorded now, in the thread that will use them.
    Raises what :meth:`RdtPolicy.chunks` raises: RefusedError RDTL-D020 for a sentence that the
    policy cannot read.
    """
    size = policy.card.camera_size or openpi.SIZE
    picture = np.zeros((size, size, 3), np.uint8)
    seen = dict.fromkeys(openpi.PICTURES, picture)
    still = [np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), np.zeros(2), np.zeros(7)]
    asked = Asked(exact.Observation(seen, *still, instruction, seen), "warm-up", 1)
    for rows in sorted({1, policy.rows}):
        chunks(policy, [asked] * rows)


async def run(
    policy: RdtPolicy, door: Door, instruction: str, agreement: Path | None = None
) -> int:
    """Warm up, listen, say where, and answer until SIGTERM (unless ignored) or SIGINT.

    Returns the number of that signal.
    ``agreement`` is the file for what free batches are found to be worth.
    Raises what :func:`serving` raises.
    """
    looked = Agreement(lambda asked: chunks(policy, asked), agreement)
    free = policy.batching == "free"
    opened = serving(policy, door, instruction, looked if free else None)
    async with opened as (uri, batcher):
        told: asyncio.Queue[int] = asyncio.Queue()
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, told.put_nowait, number)
        print(f"listening on {uri}", flush=True)
        by = await told.get()
    print(f"{batcher.requests} requests in {batcher.batches} batches", flush=True)
    if free:
        print(looked.text(), flush=True)
    return by


@contextlib.asynccontextmanager
async def serving(
    policy: RdtPolicy, door: Door, instruction: str, compute: Compute | None = None
) -> AsyncIterator[tuple[str, Batcher]]:
    """A server that answers while inside, warm from the start; its URI and its batcher.

    Raises UsageError RDTL-E058 (an address that cannot be listened on), and what
    :func:`warm_up` raises.
    """
    compute = compute or (lambda asked: chunks(policy, asked))
    batcher = Batcher(compute, policy.rows, door.wait_s)
    working = asyncio.create_task(batcher.run())
    try:
        await batcher.in_thread(warm_up, policy, instruction)
        desk = Desk(batcher, metadata(policy), eats_joints(policy), door.token)
        async with await _listen(desk, door) as listening:
            yield address(listening), batcher
    finally:  # after the last handler, which may have waited for an answer
        working.cancel()
        await asyncio.wait([working])
        batcher.close()


def address(listening: Listening) -> str:
    """The URI that clients use, with the port that the system chose for port 0."""
    host, port = listening.sockets[0].getsockname()[:2]
    return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"


async def _listen(desk: Desk, door: Door) -> Listening:
    try:
        return await serve(
            desk.serve,
            door.host,
            door.port,
            process_request=desk.greet,
            origins=[None],  # no page that a browser shows may ask
            compression=None,
            max_size=LARGEST,
            ping_timeout=None,  # a client may be busy for long; TCP notices one that is gone
        )
    except OSError as error:
        raise UsageError(
            "RDTL-E058",
            f"the policy server cannot listen: {error.strerror or error}",
            where=f"--host {door.host} --port {door.port}",
            why="another program has the port, or this machine has no such address",
            fix="choose another port; --port 0 takes a free one and says which",
        ) from error


def _open_to_all(host: str) -> UsageError:
    return UsageError(
        "RDTL-E057",
        "a policy server that others can reach needs a token",
        where=f"--host {host}",
        why="whoever reaches the port could use the machine",
        fix="--token-file FILE or --token-env NAME, or leave --host out and use an ssh tunnel",
    )
