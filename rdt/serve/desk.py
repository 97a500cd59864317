"""What happens on a server's port, connection by connection: greeting, requests, errors."""

from __future__ import annotations

import contextlib
import hmac
import itertools
import json
import time
import traceback
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as Handshake
from websockets.http11 import Response

from launcher.core.errors import RdtlError
from rdt.serve import codec, exact, openpi
from rdt.serve.batcher import Answer, Batcher


class Desk:
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
