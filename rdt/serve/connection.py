"""The asking side: one connection to a policy server, whoever wrote the server.

openpi's server computes inside its event loop, so for as long as an answer takes it
neither answers pings nor greets anybody. Hence no pings here, but a deadline per answer
and patience while connecting.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
)
from websockets.sync.client import ClientConnection, connect

from launcher.core.errors import RdtlError, RefusedError, RemoteError, UsageError, from_dict
from rdt.policy.policy import EpisodeError
from rdt.serve import codec

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
ENVELOPE = {"type", "payload"}
"""Keys of another protocol's messages."""
FAILED = "RDTL-E059"
"""What our server answers when the policy failed for no reason that it knows."""


class LostError(Exception):
    """The connection ended before an answer came."""


@dataclass
class Connection:
    """Opened when needed; ``patience_s`` to reach the server, ``deadline_s`` for an answer."""

    uri: str
    token: str | None
    patience_s: float
    deadline_s: float
    _opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _socket: ClientConnection | None = None

    def open(self) -> dict[Any, Any]:
        """Connect anew, again and again while nobody answers; returns the server's metadata.

        Raises UsageError RDTL-E057 (no or another token) and RDTL-E050 (no address of
        a server), RefusedError RDTL-E050 (another protocol), RemoteError RDTL-E051
        (nobody there).
        """
        self.close()
        until, pause = time.monotonic() + self.patience_s, FIRST_PAUSE_S
        while True:
            try:
                return self._greeted(until)
            except (OSError, InvalidHandshake, InvalidURI, ConnectionClosed) as error:
                self.close()
                if not _passes(error):
                    raise self._turned_away(error) from error
                left = until - time.monotonic()
                if left <= 0:
                    raise self._nobody(error) from error
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _greeted(self, until: float) -> dict[Any, Any]:
        opening = connect(
            self.uri,
            additional_headers={"Authorization": f"Api-Key {self.token}"} if self.token else None,
            open_timeout=max(1.0, until - time.monotonic()),
            compression=None,
            max_size=None,
            ping_interval=None,
            proxy=None,
        )
        self._socket = self._opened.enter_context(opening)
        metadata = self._message(self._socket.recv(max(1.0, until - time.monotonic())))
        if set(metadata) >= ENVELOPE:
            raise self._another_protocol(f"its first message has the keys {sorted(metadata)}")
        return metadata

    def ask(self, message: Mapping[str, Any]) -> dict[Any, Any]:
        """The server's answer to one request.

        Raises LostError, RemoteError RDTL-E052 (no answer in time), EpisodeError RDTL-E053 or
        the server's own RdtlError (it said that something went wrong), RefusedError
        RDTL-E050 (what came is no answer).
        """
        if self._socket is None:
            raise LostError("the connection is closed")
        try:
            self._socket.send(codec.pack(message))
            return self._message(self._socket.recv(self.deadline_s))
        except TimeoutError as error:
            self.close()  # a late answer must not be taken for that of the next request
            raise self._slow() from error
        except ConnectionClosed as error:
            self.close()
            raise LostError(str(error)) from error

    def close(self) -> None:
        """End the connection, if there is one."""
        self._socket = None
        self._opened.close()

    def _message(self, data: str | bytes) -> dict[Any, Any]:
        if isinstance(data, str):
            raise self._said(data)
        try:
            message = codec.unpack(data)
        except ValueError as error:
            raise self._another_protocol(str(error)) from error
        if not isinstance(message, dict):
            raise self._another_protocol(f"it sent a {type(message).__name__}, not a map")
        return message

    def _said(self, text: str) -> RdtlError:
        """The error in a text frame: ours as JSON, openpi's as a traceback."""
        try:
            known = from_dict(json.loads(text))
            return EpisodeError(**vars(known.problem)) if known.problem.code == FAILED else known
        except (ValueError, KeyError, TypeError):
            return EpisodeError(
                "RDTL-E053",
                "the policy server answered with an error",
                where=f"{self.uri}: …{' '.join(text.split())[-400:]}",
                why="the policy gave no actions for this observation",
                fix="look into the server's log; a server for LIBERO takes the keys and sizes "
                "that docs/evaluation.md lists",
            )

    def _another_protocol(self, found: str) -> RefusedError:
        return RefusedError(
            "RDTL-E050",
            "this server does not speak openpi's protocol",
            where=f"{self.uri}: {found}",
            why="a guessed meaning of its messages would look like a weak policy",
            fix="start the policy with `rdtl serve` or with openpi's serve_policy.py",
        )

    def _turned_away(self, error: Exception) -> RdtlError:
        if isinstance(error, InvalidStatus) and error.response.status_code in (401, 403):
            return UsageError(
                "RDTL-E057",
                "the policy server does not let us in",
                where=f"{self.uri}: status {error.response.status_code}",
                why="it wants a token" if self.token is None else "it wants another token",
                fix="name the file or the variable that holds the server's token",
            )
        if isinstance(error, InvalidURI):
            return UsageError(
                "RDTL-E050",
                "this is no address of a policy server",
                where=self.uri,
                fix="write it like ws://127.0.0.1:8000",
            )
        return self._another_protocol(str(error))

    def _nobody(self, error: Exception) -> RemoteError:
        return RemoteError(
            "RDTL-E051",
            f"no policy server answered within {self.patience_s:g} s",
            where=f"{self.uri}: {type(error).__name__}: {error}",
            why="without it there are no actions; finished episodes are recorded",
            fix="start the server, or look into its log, and run the same command again",
        )

    def _slow(self) -> RemoteError:
        return RemoteError(
            "RDTL-E052",
            f"the policy server gave no answer within {self.deadline_s:g} s",
            where=self.uri,
            why="a server that hangs would hold up every episode; the connection was closed, so "
            "that a late answer is not taken for another one",
            fix="look into the server's log; let it warm up before the evaluation starts",
        )


def _passes(error: Exception) -> bool:
    """Whether a server that starts, ends or is busy looks like this for a while."""
    if isinstance(error, InvalidStatus):
        return error.response.status_code >= 500
    return isinstance(error, OSError | InvalidMessage | ConnectionClosed)
