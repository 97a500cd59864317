"""The serving side: one port for openpi's clients, for our own evaluation and for probes."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import json
import signal
import time
import traceback
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.server import Server as Listening
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as Handshake
from websockets.http11 import Response

from launcher.core.errors import RdtlError, UsageError
from rdt.policy.rdt import RdtPolicy, Request
from rdt.serve import codec, exact, openpi
from rdt.serve.batcher import Answer, Batcher
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
    Raises UsageError RDTL-E056 for a sentence that the policy cannot read, and what
    :meth:`RdtPolicy.chunks` raises.
    """
    size = policy.card.camera_size or openpi.SIZE
    picture = np.zeros((size, size, 3), np.uint8)
    seen = dict.fromkeys(openpi.PICTURES, picture)
    still = [np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), np.zeros(2), np.zeros(7)]
    asked = Asked(exact.Observation(seen, *still, instruction, seen), "warm-up", 1)
    try:
        for rows in sorted({1, policy.rows}):
            chunks(policy, [asked] * rows)
    except ValueError as error:
        raise UsageError(
            "RDTL-E056",
            "the policy cannot read the sentence to warm up with",
            where=f"--instruction: {error}",
            fix="give an instruction that it will be asked",
        ) from error


async def run(policy: RdtPolicy, door: Door, instruction: str) -> None:
    """Warm up, listen, say where, and answer until SIGTERM or SIGINT.

    Raises what :func:`serving` raises.
    """
    async with serving(policy, door, instruction) as (uri, batcher):
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        print(f"listening on {uri}", flush=True)
        await stop.wait()
    print(f"{batcher.requests} requests in {batcher.batches} batches", flush=True)


@contextlib.asynccontextmanager
async def serving(
    policy: RdtPolicy, door: Door, instruction: str
) -> AsyncIterator[tuple[str, Batcher]]:
    """A server that answers while inside, warm from the start; its URI and its batcher.

    Raises UsageError RDTL-E058 (an address that cannot be listened on), and what
    :func:`warm_up` raises.
    """
    batcher = Batcher(lambda asked: chunks(policy, asked), policy.rows, door.wait_s)
    working = asyncio.create_task(batcher.run())
    try:
        await batcher.in_thread(warm_up, policy, instruction)
        desk = _Desk(batcher, metadata(policy), eats_joints(policy), door.token)
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


async def _listen(desk: _Desk, door: Door) -> Listening:
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


class _Desk:
    """What happens on one port, connection by connection."""

    def __init__(
        self, batcher: Batcher, told: dict[str, Any], eats_joints: bool, token: str | None
    ) -> None:
        self._batcher, self._told = batcher, told
        self._eats_joints, self._token = eats_joints, token
        self._numbers = itertools.count()

    def greet(self, connection: ServerConnection, handshake: Handshake) -> Response | None:
        """Answer probes, and turn away whoever lacks the token."""
        if handshake.path == "/healthz":
            return connection.respond(HTTPStatus.OK, "OK\n")
        given = handshake.headers.get("Authorization", "").encode()
        if self._token and not hmac.compare_digest(given, f"Api-Key {self._token}".encode()):
            return connection.respond(HTTPStatus.UNAUTHORIZED, "a token is needed (RDTL-E057)\n")
        return None

    async def serve(self, connection: ServerConnection) -> None:
        """Metadata, then an answer to every request, in order."""
        session = openpi.Session(f"connection-{next(self._numbers)}", self._eats_joints)
        previous_ms = None
        with contextlib.suppress(ConnectionClosed), self._batcher.client():
            await connection.send(codec.pack(self._told))
            async for data in connection:
                began = time.monotonic()
                await connection.send(await self._answer(data, session, previous_ms))
                previous_ms = 1000 * (time.monotonic() - began)

    async def _answer(
        self, data: str | bytes, session: openpi.Session, previous_ms: float | None
    ) -> str | bytes:
        """The answer to one request; a text is an error."""
        ours = False
        try:
            message = _message(data)
            ours = exact.KEY in message
            asked = exact.from_wire(message) if ours else session.read(message)
            answer = await self._batcher.ask(asked)
            if not ours:
                session.answered(asked)
            return codec.pack(_reply(answer, previous_ms))
        except Exception as error:
            known = error if isinstance(error, RdtlError) else _failed(error)
            return json.dumps(known.to_dict()) if ours else str(known)


def _message(data: str | bytes) -> dict[Any, Any]:
    try:
        message = codec.unpack(data) if isinstance(data, bytes) else None
    except ValueError as error:
        raise exact.refused("", None, f"openpi's msgpack ({error})") from error
    if not isinstance(message, dict):
        raise exact.refused("", message, "a map in a binary frame")
    return message


def _reply(answer: Answer, previous_ms: float | None) -> dict[str, Any]:
    timing = {"infer_ms": 1000 * answer.infer_s, "batch": answer.mates}
    if previous_ms is not None:
        timing["prev_total_ms"] = previous_ms
    return {
        openpi.ACTIONS: answer.actions,
        "server_timing": timing,
        "policy_timing": {"infer_ms": timing["infer_ms"]},
    }


def _failed(error: Exception) -> RdtlError:
    traceback.print_exception(error)  # into the server's log
    return RdtlError(
        "RDTL-E059",
        f"the policy failed: {type(error).__name__}: {error}",
        where="the policy server; its log has the traceback",
        why="this request has no answer; others are not touched",
        fix="look into the server's log",
    )
