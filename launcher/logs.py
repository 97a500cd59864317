"""Finding the log that a person means, and following it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from launcher import status
from launcher.core.errors import UsageError
from launcher.core.runs import RunDir
from launcher.judges import LIVE, State, launcher_of
from launcher.markers import Markers, Marks
from launcher.status import RunStatus, StageStatus

POLL_S = 0.5
LOOK_S = 30.0
"""How often the scheduler is asked whether the task still lives."""
INTERESTING: tuple[State, ...] = ("failed", "running", "gone", "done")


@dataclass(frozen=True)
class Log:
    """Output of one task of a stage in one attempt, a file for each node."""

    run: RunDir
    stage: str
    index: int
    attempt: int
    nodes: int

    def paths(self) -> list[Path]:
        """Files that exist, in the order of nodes."""
        named = [self.run.log(self.stage, self.attempt, self.index, n) for n in range(self.nodes)]
        return [path for path in named if path.exists()]


def choose(one: RunStatus, stage: str | None, index: int | None, attempt: int | None) -> Log:
    """The log that was asked for; what is not said is the most interesting: failed, running, new.

    Raises UsageError RDTL-U026 for a stage, task or attempt that has no log.
    """
    candidates = [s for s in one.stages if stage in (None, s.stage.name)]
    for state in INTERESTING:
        # Of stages that are done the last one is the news; of others the first is the cause.
        for found in reversed(candidates) if state == "done" else candidates:
            for task in found.tasks:
                if index not in (None, task.index) or (index is None and task.state != state):
                    continue
                log = _newest(one.run, found, task.index, attempt)
                if log:
                    return log
    known = ", ".join(s.stage.name for s in one.stages)
    asked = {"stage": stage, "task": index, "attempt": attempt}
    said = ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None)
    raise UsageError(
        "RDTL-U026",
        f"there is no log of {said}" if said else "nothing of this run has written a log yet",
        where=str(one.run.root / "logs"),
        fix=f"stages are {known}; rdtl runs show {one.run.root.name} says what started",
    )


def _newest(run: RunDir, stage: StageStatus, index: int, attempt: int | None) -> Log | None:
    numbers = [attempt] if attempt is not None else range(stage.attempts, 0, -1)
    logs = (Log(run, stage.stage.name, index, number, stage.stage.nodes) for number in numbers)
    return next((log for log in logs if log.paths()), None)


def read(log: Log) -> Iterator[tuple[int, str]]:
    """(number of the file, line) of everything written so far."""
    for number, path in enumerate(log.paths()):
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                yield number, line.rstrip("\n")


def follow(log: Log, one: RunStatus) -> Iterator[tuple[int, str]]:
    """As :func:`read`, and then what is written until the task has ended.

    Its end is its marker, or the scheduler's word that it is not alive: what was cancelled or lost
    its node leaves none. Where tasks end with their launcher, so is a marker that it saved (nobody
    starts it again), and the launcher's end.
    """
    alive, asked = _alive(log, one), time.monotonic()
    offsets: dict[Path, int] = {}
    markers = Markers(one.run)
    while True:
        if not one.ends_with_launcher and time.monotonic() - asked >= LOOK_S:
            (now,) = status.of_all([one.run], known={one.run: markers})
            alive, asked = _alive(log, now), time.monotonic()
        over = not alive or _ended(markers, log, one)
        for number, path in enumerate(log.paths()):
            with path.open("rb") as handle:
                handle.seek(offsets.get(path, 0))
                data = handle.read()
            if not over:
                data = data[: data.rfind(b"\n") + 1]  # the rest of a line comes later
            offsets[path] = offsets.get(path, 0) + len(data)
            for line in data.decode("utf-8", errors="replace").splitlines():
                yield number, line
        if over:
            return
        time.sleep(POLL_S)
        markers.refresh()


def _alive(log: Log, one: RunStatus) -> bool:
    stage = next(s for s in one.stages if s.stage.name == log.stage)
    task = stage.tasks[log.index]
    return task.state in LIVE and task.attempt == log.attempt


def _ended(markers: Markers, log: Log, one: RunStatus) -> bool:
    mark = markers.marks(log.stage, log.index).get(log.attempt) or Marks()
    if one.ends_with_launcher and launcher_of(one.run) is None:
        return True
    told = len(mark.finished.get(mark.restart, {}))
    saved = one.ends_with_launcher and mark.saved() and told == log.nodes
    return saved or mark.done(log.nodes) or mark.failure() is not None
