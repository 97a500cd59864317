"""What the ledger says of every task of a run, from one listing of its directory.

:class:`launcher.core.runs.Ledger` answers one question a call; that is right for a
job, and far too slow for somebody who looks at an array of a thousand tasks. This
reads the directory once, each event at most once (events never change), and
``refresh`` reads what is new.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.core.plan import Stage
from launcher.core.runs import RunDir, told

NAME = re.compile(
    r"(?P<kind>claim|submitted|cancelled|started|finished)\.(?P<stage>.+?)"
    r"(?:\.i(?P<index>\d+))?(?:\.n(?P<node>\d+))?\.a(?P<attempt>\d+)"
    r"(?:\.[rc](?P<restart>\d+))?"
)
SAVED = (85, 86)
"""Exit codes of a job that saved its work and did not fail: 85 asks for a requeue, 86 was
told to end."""


@dataclass
class Attempt:
    """One submission of a stage: what was claimed, what the scheduler called it."""

    number: int
    indices: list[int] = field(default_factory=list)
    claimed_at: float = 0.0
    jobs: list[dict[str, Any]] = field(default_factory=list)
    """The ``submitted`` events of this attempt, one for each chunk of an array."""
    cancelled: dict[str, Any] | None = None

    @property
    def ids(self) -> list[str]:
        """Scheduler ids of all chunks."""
        return [id_ for event in self.jobs for id_ in event["ids"]]

    @property
    def submitted_at(self) -> float:
        """Seconds since 1970 when the newest chunk was submitted, 0 before."""
        return max((event["at"] for event in self.jobs), default=0.0)

    def places(self) -> dict[int, tuple[str, int]]:
        """Job id and array task of every stage index that was submitted.

        The id is "" where the job was in and over before anybody could look it up.
        """
        return {
            index: (event["ids"][0] if event["ids"] else "", place)
            for event in self.jobs
            for place, index in enumerate(event.get("indices", self.indices))
        }

    def unsent(self) -> set[int]:
        """Indices that are in no recorded submission, while nobody has cancelled the attempt."""
        return set() if self.cancelled else set(self.indices) - self.places().keys()


@dataclass
class Marks:
    """What the nodes of one task left behind in one attempt, by how often it was requeued."""

    started: dict[int, dict[str, Any]] = field(default_factory=dict)
    finished: dict[int, dict[int, dict[str, Any]]] = field(default_factory=dict)

    def done(self, nodes: int, since: float = 0.0) -> bool:
        """Whether all nodes ended with exit code 0 in one and the same start, at ``since`` (in
        seconds since 1970) or later."""
        return any(
            len(by_node) == nodes
            and all(event["exit_code"] == 0 for event in by_node.values())
            and self._began(restart) >= since
            for restart, by_node in self.finished.items()
        )

    def _began(self, restart: int) -> float:
        """Never early: a listing may show an end and have missed the beginning just before it."""
        start = self.started.get(restart)
        return start["at"] if start else math.inf

    @property
    def restart(self) -> int:
        """How often the scheduler has started it again."""
        return max([*self.started, *self.finished], default=0)

    def failure(self) -> dict[str, Any] | None:
        """The event of the node that failed in the newest start, as Ledger.failure, or None."""
        events = self.finished.get(self.restart, {}).values()
        failed = [event for event in events if event["exit_code"] not in (0, *SAVED)]
        return min(failed, key=told, default=None)

    def saved(self) -> bool:
        """Whether the newest start ended by saving its work for a later one."""
        events = self.finished.get(self.restart, {}).values()
        return any(event["exit_code"] in SAVED for event in events)


class Markers:
    """The events of one run by stage, attempt and task."""

    def __init__(self, run: RunDir) -> None:
        self._folder = run.ledger.folder
        self._known: set[str] = set()
        self._attempts: dict[str, dict[int, Attempt]] = {}
        self._tasks: dict[tuple[str, int], dict[int, Marks]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the events that were published since the last look."""
        try:
            with os.scandir(self._folder) as entries:
                names = {entry.name for entry in entries}
        except FileNotFoundError:
            return
        for name in sorted(names - self._known):
            match = NAME.fullmatch(name.removesuffix(".json"))
            if name.endswith(".json") and not name.startswith(".") and match:
                self._add(match, _read(self._folder / name))
            self._known.add(name)

    def _add(self, match: re.Match[str], event: dict[str, Any]) -> None:
        stage, number = match["stage"], int(match["attempt"])
        if match["index"] is not None:
            marks = self._tasks.setdefault((stage, int(match["index"])), {})
            mark = marks.setdefault(number, Marks())
            restart = int(match["restart"] or 0)
            if match["kind"] == "started":
                mark.started[restart] = event
            else:
                mark.finished.setdefault(restart, {})[int(match["node"] or 0)] = event
            return
        attempt = self._attempts.setdefault(stage, {}).setdefault(number, Attempt(number))
        if match["kind"] == "claim":
            attempt.indices, attempt.claimed_at = list(event["indices"]), event["at"]
        elif match["kind"] == "submitted":
            attempt.jobs.append(event)
        elif match["kind"] == "cancelled":
            attempt.cancelled = event

    def attempts(self, stage: str) -> list[Attempt]:
        """Claimed attempts of a stage, oldest first."""
        return [a for _, a in sorted(self._attempts.get(stage, {}).items())]

    def newest(self, stage: str) -> dict[int, Attempt]:
        """For each index that was ever claimed, the newest attempt that claimed it."""
        return {index: attempt for attempt in self.attempts(stage) for index in attempt.indices}

    def done(self, stage: Stage, index: int) -> bool:
        """Whether some attempt of this task succeeded on all its nodes.

        A stage that reads whatever an earlier one left (``needs_ended``) must have begun after
        the newest attempt of that one was opened: else it knows nothing of what that made.
        """
        since = max(map(self._opened, stage.needs), default=0.0) if stage.needs_ended else 0.0
        marks = self.marks(stage.name, index).values()
        return any(mark.done(stage.nodes, since) for mark in marks)

    def overtaken(self, stage: Stage, index: int) -> bool:
        """Whether its newest attempt succeeded, and what it reads was opened again after that."""
        if not stage.needs_ended:  # the others stay done; asked for each task of large arrays
            return False
        newest = self.newest(stage.name).get(index)
        mark = self.marks(stage.name, index).get(newest.number) if newest else None
        return bool(mark and mark.done(stage.nodes)) and not self.done(stage, index)

    def _opened(self, stage: str) -> float:
        """When the newest attempt of a stage was claimed, 0 before the first."""
        return max((a.claimed_at for a in self.attempts(stage)), default=0.0)

    def marks(self, stage: str, index: int) -> dict[int, Marks]:
        """Marks of one task by attempt; empty before it first started."""
        return self._tasks.get((stage, index), {})


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as handle:
        event: dict[str, Any] = json.loads(handle.read())
    return event
