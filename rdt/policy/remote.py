"""A policy in another process or on another machine, asked over openpi's protocol.

Our own server is sent the exact observation with episode and query, so a question may be
repeated after a broken connection: its answer is the same. Any other server is sent what
openpi's LIBERO example sends. What it remembers is unknown and its noise comes from a
stream, so nothing is repeated there: a broken connection is a failed try of the episode,
and each episode begins with a new connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RefusedError
from rdt.policy.policy import EpisodeError, Observation
from rdt.serve import exact, openpi
from rdt.serve.connection import Connection, LostError
from rdt.spec import chunks
from rdt.spec.record import EpisodeKey

if TYPE_CHECKING:
    from rdt.sim.libero import Simulator

REPEATS = 3
"""Times that one question is asked of a server that ends the connection instead of answering."""


def open_policy(
    uri: str,
    token: str | None = None,
    patience_s: float = 300.0,
    deadline_s: float = 600.0,
    executed: int = 1,
    learned: Callable[[int], None] | None = None,
) -> RemotePolicy:
    """The policy behind ``uri`` (ws://HOST:PORT), which may still be starting.

    ``executed`` actions of each chunk are to be executed: shorter answers are refused.
    ``learned`` is told once how many actions a chunk has, by the first answer.
    Raises what :meth:`Connection.open` raises, and RefusedError RDTL-E007 or RDTL-E008 for
    a server that declares another rotation of pictures or sign of the gripper.
    """
    return RemotePolicy(Connection(uri, token, patience_s, deadline_s), executed, learned)


class RemotePolicy:
    """A policy for the harness. ``metadata`` is what the server said of itself,
    ``sent`` what it is sent: both belong into the record of an evaluation."""

    sees = True

    def __init__(
        self,
        connection: Connection,
        executed: int = 1,
        learned: Callable[[int], None] | None = None,
    ) -> None:
        self._connection = connection
        self._executed = executed
        self._learned = learned
        self.metadata = connection.open()
        self.ours = self.metadata.get("protocol") == exact.PROTOCOL
        self.sees_previous = self.ours and bool(self.metadata.get("sees_previous"))
        self.sent = {"protocol": exact.PROTOCOL} if self.ours else dict(openpi.SENT)
        _require_conventions(connection.uri, self.metadata)
        self._episode = ""
        self._fresh = True

    def begin(self, simulator: Simulator, key: EpisodeKey) -> None:
        """Note the episode; a foreign server is met anew, for it may remember the last one."""
        self._episode = key.text()
        if not self.ours and not self._fresh:
            self._reopen()

    def chunk(self, observation: Observation, query: int) -> NDArray[np.float32]:
        """Actions (n, 7) as the server gave them, finite.

        Raises EpisodeError RDTL-E051 (connection broken), RDTL-E053 (the server's error) and
        RDTL-E055 (not finite), RefusedError RDTL-E054 (no chunk of actions) and RDTL-E050
        (another server has taken its place), UsageError RDTL-E074 (fewer actions than are to be
        executed), and what :meth:`Connection.ask` raises.
        """
        self._fresh = False
        if self.ours:
            answer = self._ask_again(exact.to_wire(exact.Asked(observation, self._episode, query)))
        else:
            answer = self._ask_once(openpi.to_wire(observation), query)
        return self._actions(answer, query)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _ask_once(self, message: dict[str, Any], query: int) -> dict[Any, Any]:
        try:
            return self._connection.ask(message)
        except LostError as error:
            why = "the question is not repeated, because the answer could be another one"
            raise self._broken(error, f"query {query}", why) from error

    def _ask_again(self, message: dict[str, Any]) -> dict[Any, Any]:
        for _ in range(REPEATS):
            try:
                return self._connection.ask(message)
            except LostError as error:
                lost = error
                self._reopen()
        why = f"it ended the connection at each of {REPEATS} tries"
        raise self._broken(lost, f"query {message['query']}", why) from lost

    def _reopen(self) -> None:
        metadata = self._connection.open()
        changed = sorted(
            str(key)
            for key in {*metadata, *self.metadata}
            if repr(metadata.get(key)) != repr(self.metadata.get(key))
        )
        if changed:
            raise RefusedError(
                "RDTL-E050",
                "another policy server has taken the place of the first one",
                where=f"{self._connection.uri}: it differs in {', '.join(changed)}",
                why="episodes of two policies have no common rate",
                fix="start the first server again, or evaluate under another name (--name OTHER)",
            )
        self._fresh = True

    def _actions(self, answer: dict[Any, Any], query: int) -> NDArray[np.float32]:
        actions = answer.get(openpi.ACTIONS)
        if not isinstance(actions, np.ndarray) or actions.dtype.kind not in "fiu":
            keys = ", ".join(sorted(map(str, answer)))
            raise self._no_chunk(f"the answer has {keys or 'no keys'}", query)
        if actions.ndim != 2 or actions.shape[1] != 7 or not len(actions):
            raise self._no_chunk(f"shape {actions.shape}", query)
        chunks.require(self._executed, len(actions), self._at(query))
        if self._learned:
            self._learned(len(actions))
            self._learned = None
        with np.errstate(over="ignore"):  # what is too large is found below
            rows = actions.astype(np.float32)
        bad = np.argwhere(~np.isfinite(rows))
        if len(bad):
            raise EpisodeError(
                "RDTL-E055",
                "the policy server answered with actions that are not finite",
                where=f"{self._at(query)}: {openpi.ACTIONS}[{bad[0][0]}, {bad[0][1]}] = "
                f"{rows[tuple(bad[0])]}, {len(bad)} of {rows.size}",
                why="the simulator would be driven nowhere",
                fix="check the server's statistics (NaN, a spread of 0) and weights",
            )
        return rows

    def _at(self, query: int) -> str:
        return f"{self._connection.uri}, episode {self._episode!r}, query {query}"

    def _no_chunk(self, found: str, query: int) -> RefusedError:
        return RefusedError(
            "RDTL-E054",
            "the policy server's answer holds no chunk of LIBERO actions",
            where=f"{self._at(query)}: {found}, expected {openpi.ACTIONS!r} of shape (n, 7)",
            why="other numbers mean another robot, and would move this one at random",
            fix="serve a policy for LIBERO: openpi's pi05_libero, or `rdtl serve`",
        )

    def _broken(self, error: LostError, what: str, why: str) -> EpisodeError:
        return EpisodeError(
            "RDTL-E051",
            "the connection to the policy server broke in the middle of an episode",
            where=f"{self._connection.uri}, episode {self._episode!r}, {what}: {error}",
            why=why,
            fix="look into the server's log; the episode is tried again from its start",
        )


def _require_conventions(uri: str, metadata: dict[Any, Any]) -> None:
    """Refuse a server that says that it means something else than what it is sent."""
    for key, code in (("camera_rotation", "RDTL-E007"), ("gripper", "RDTL-E008")):
        expected = openpi.CONVENTIONS[key]
        found = metadata.get(key, expected)
        if found != expected:
            raise RefusedError(
                code,
                f"the policy server declares another convention of {key}",
                where=f"{uri}: metadata {key} = {found!r}, here it is {expected!r}",
                why="a wrong sign or a picture turned twice does not crash, it gives 0 %",
                fix="let the server convert, and declare what it then takes",
            )
