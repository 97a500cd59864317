"""Stages cut into parts that a cluster takes as one job each, and the record of sending them.

A part is what one sbatch sends: some tasks of one attempt of a stage. Its events::

    claim.STAGE.aN                  which tasks, how many to a part; opens attempt N, once
    sending.STAGE.aN[.cK].tT        "I run sbatch now", by whom; T counts the tries
    submitted.STAGE.aN[.cK]         the ids that the scheduler gave, and the tasks behind them

``.cK`` is there when the stage was cut. A try without ``submitted`` may or may not
have reached the scheduler; who finds one looks the part up by its name before
anything is sent again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from launcher import owner
from launcher.core.runs import Ledger

LEASE_S = 300.0
"""A try of a launcher on another machine counts as abandoned after this; sbatch itself is
stopped long before."""


@dataclass(frozen=True)
class Try:
    """One sbatch of a part. ``busy``: its launcher may still be at it; ``unclear``: that one gave
    up or is gone, and nobody knows whether it went in; number 0, ``none``: nobody tried."""

    number: int
    state: Literal["none", "busy", "unclear"]
    at: float
    """When it began, in seconds since 1970."""


@dataclass(frozen=True)
class Part:
    """Tasks of one stage and attempt that are sent as one job: part ``number`` of ``of``."""

    stage: str
    attempt: int
    indices: tuple[int, ...]
    number: int = 0
    of: int = 1

    @property
    def tag(self) -> str:
        """``a1``, or ``a1.c3`` when the stage was cut."""
        return f"a{self.attempt}" if self.of == 1 else f"a{self.attempt}.c{self.number}"


def cut(stage: str, attempt: int, indices: list[int], size: int | None) -> list[Part]:
    """Parts of at most ``size`` tasks (None: one part), in order: exactly ceil(n / size)."""
    size = size or max(1, len(indices))
    pieces = [tuple(indices[i : i + size]) for i in range(0, len(indices), size)]
    return [Part(stage, attempt, p, k, len(pieces)) for k, p in enumerate(pieces)]


def spans(indices: tuple[int, ...] | list[int]) -> str:
    """Ascending numbers as Slurm writes them: [0, 1, 2, 5] → ``0-2,5``."""
    found: list[list[int]] = []
    for index in indices:
        if found and index == found[-1][1] + 1:
            found[-1][1] = index
        else:
            found.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


class Submissions:
    """The part of a run's ledger that says what was sent to the scheduler."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._ids: dict[tuple[str, str], list[str]] = {}

    def claim(self, stage: str, after: int, indices: list[int], size: int | None) -> list[Part]:
        """Open the attempt that follows attempt ``after``.

        Of several launchers that do so at once one decides which tasks it has; all
        get its parts and help to send them.
        """
        self._ledger.publish(f"claim.{stage}.a{after + 1}", indices=indices, part_size=size)
        return self.parts(stage, after + 1)

    def parts(self, stage: str, attempt: int) -> list[Part]:
        """The parts of a claimed attempt; none when nobody claimed it."""
        event = self._ledger.read(f"claim.{stage}.a{attempt}")
        return cut(stage, attempt, event["indices"], event["part_size"]) if event else []

    def ids(self, part: Part) -> list[str] | None:
        """Scheduler ids of a part; None while nobody knows that it was sent."""
        key = (part.stage, part.tag)
        if key not in self._ids:
            event = self._ledger.read(f"submitted.{part.stage}.{part.tag}")
            if event is None:
                return None
            self._ids[key] = event["ids"]
        return self._ids[key]

    def sent(self, part: Part, ids: list[str]) -> None:
        """Record that the scheduler has the part."""
        self._ledger.publish(
            f"submitted.{part.stage}.{part.tag}", ids=ids, indices=list(part.indices)
        )

    def newest(self, part: Part) -> Try:
        """The newest try to send a part."""
        names = self._ledger.names(f"sending.{part.stage}.{part.tag}.t")
        number = max((int(name.rsplit(".t", 1)[1]) for name in names), default=0)
        event = self._ledger.read(f"sending.{part.stage}.{part.tag}.t{number}")
        if event is None:
            return Try(0, "none", 0.0)
        who, at = event["owner"], float(event["at"])
        given_up = who == owner.me() or owner.is_gone(who) or time.time() - at > LEASE_S
        return Try(number, "unclear" if given_up else "busy", at)

    def begin(self, part: Part, after: int) -> bool:
        """Announce the try that follows try ``after``; False when another launcher was quicker."""
        name = f"sending.{part.stage}.{part.tag}.t{after + 1}"
        return self._ledger.publish(name, owner=owner.me())

    def is_cancelled(self, part: Part) -> bool:
        """Whether somebody cancelled this attempt: then nothing more of it is sent."""
        return self._ledger.read(f"cancelled.{part.stage}.a{part.attempt}") is not None
