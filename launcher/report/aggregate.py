"""From the records of a run to counts: which episodes count, and what they add up to.

Only episodes that the plan names count; whatever is missing is listed, never
averaged away. Records of two protocols, or of two checkpoints under one policy's
name, have no common rate and are refused. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress
from math import fsum
from operator import add
from typing import Any

from launcher.core.runs import RunDir
from launcher.report import reading
from launcher.report.episodes import FINISHED, Episodes
from launcher.report.intervals import Interval, wilson
from launcher.report.layouts import STATUSES
from rdt.spec import planned
from rdt.spec.protocol import Protocol
from rdt.spec.record import EpisodeKey, Record

IS_SUCCESS = bytes(kind == 1 for kind in range(256))
IS_FINISHED = bytes(0 < kind <= FINISHED for kind in range(256))


@dataclass(frozen=True)
class Row:
    """One policy on one task, or on all tasks of the run (``task_id`` None).

    ``episodes`` ended as success or failure; ``errors`` did not, ``timeouts`` among them.
    Means are over ``episodes``: ``mean_steps`` in control steps, ``mean_wall_s`` and
    ``mean_policy_s`` in seconds; ``mean_success_steps`` is over the successes alone.
    """

    policy: str
    suite: str
    task_id: int | None
    task_name: str
    episodes: int
    successes: int
    errors: int
    timeouts: int
    missing: int
    mean_steps: float | None
    mean_success_steps: float | None
    mean_wall_s: float | None
    mean_policy_s: float | None
    checkpoint: str

    @property
    def rate(self) -> float | None:
        """Successes over episodes in [0, 1]; None without episodes."""
        return self.successes / self.episodes if self.episodes else None

    @property
    def interval(self) -> Interval | None:
        """Wilson 95 % interval of :attr:`rate`; None without episodes."""
        return wilson(self.successes, self.episodes) if self.episodes else None

    @property
    def rate_errors_as_failures(self) -> float | None:
        """Successes over episodes and errors in [0, 1]; None when there are neither."""
        tried = self.episodes + self.errors
        return self.successes / tried if tried else None


@dataclass(frozen=True)
class Report:
    """Everything that the tables and the page say about the episodes of one run.

    ``rows`` has one row per policy, ``tasks`` one per policy and task.
    """

    run: RunDir
    name: str
    site: str
    config: dict[str, Any]
    protocol: Protocol
    episodes: Episodes
    rows: tuple[Row, ...]
    tasks: tuple[Row, ...]

    @property
    def policies(self) -> tuple[str, ...]:
        """The planned policies, in their given order."""
        return self.episodes.planned.policies

    @property
    def task_name(self) -> str:
        """The name of the first recorded task, printable."""
        return reading.printable(next(iter(self.episodes.task_names.values())))

    def row(self, policy: str) -> Row | None:
        """The row of ``policy``, or None when it was not evaluated."""
        return next((row for row in self.rows if row.policy == policy), None)

    def records(self) -> Iterator[Record]:
        """The planned records, one per key, in the order of the plan, their text printable."""
        e = self.episodes
        return map(reading.printable_record, e.records(e.recorded()))

    def errors(self) -> list[Record]:
        """The records that are no result, their text printable."""
        e = self.episodes
        numbers = [n for n, status in enumerate(e.status) if status > FINISHED]
        return [reading.printable_record(r) for r in e.records(numbers)]

    def statuses(self, policy: str) -> dict[EpisodeKey, str]:
        """Status of the recorded episodes of ``policy``."""
        e = self.episodes
        numbers = (n for name, _, own in e.planned.blocks() if name == policy for n in own)
        return {e.planned.key(n): STATUSES[e.status[n]] for n in numbers if e.status[n]}

    def missing(self) -> list[EpisodeKey]:
        """The planned episodes without a record."""
        e = self.episodes
        return [e.planned.key(n) for n, status in enumerate(e.status) if not status]

    def lengths(self, policy: str, status: str) -> list[int]:
        """Steps of the episodes of ``policy`` that ended as ``status``."""
        e, kind = self.episodes, STATUSES.index(status)
        numbers = (n for name, _, own in e.planned.blocks() if name == policy for n in own)
        return [e.steps[n] for n in numbers if e.status[n] == kind]


def load(run: RunDir) -> Report:
    """Read and count the records of ``run``.

    Raises UsageError RDTL-U014 when it is no run, RdtlError RDTL-E037 when it has no
    record, RDTL-E075 for an unreadable one, RefusedError RDTL-E021 or RDTL-E038 when
    records of two protocols or two checkpoints lie together.
    """
    plan = reading.plan(run)
    asked = planned.from_config(plan["config"])
    episodes = reading.episodes(run, asked)
    if not any(episodes.status):
        raise reading.nothing_recorded(run, len(asked), episodes.unplanned)
    protocol = reading.one_protocol(run, episodes)
    reading.one_checkpoint_each(run, episodes)
    tasks, rows = count(episodes)
    return Report(run, plan["name"], plan["site"], plan["config"], protocol, episodes, rows, tasks)


@dataclass(frozen=True)
class _Sums:
    """What a row is made of; sums of episodes that ended as success or failure."""

    counts: tuple[int, ...]
    steps: int
    success_steps: int
    wall_s: float
    policy_s: float
    checkpoint: str

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            tuple(map(add, self.counts, other.counts)),
            self.steps + other.steps,
            self.success_steps + other.success_steps,
            self.wall_s + other.wall_s,
            self.policy_s + other.policy_s,
            self.checkpoint or other.checkpoint,
        )


def count(e: Episodes) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """A row for each policy on each task, and one for each policy on all of them."""
    tasks, totals = [], dict[str, _Sums]()
    suites = ", ".join(dict.fromkeys(suite for suite, _ in e.planned.tasks))
    for policy, (suite, task_id), own in e.planned.blocks():
        sums = _sums(e, own)
        name = reading.printable(e.task_names.get((suite, task_id), ""))
        tasks.append(_row(policy, suite, task_id, name, sums))
        totals[policy] = totals[policy] + sums if policy in totals else sums
    rows = [_row(policy, suites, None, "", sums) for policy, sums in totals.items()]
    return tuple(tasks), tuple(rows)


def _sums(e: Episodes, own: range) -> _Sums:
    where = slice(own.start, own.stop)
    status, steps = e.status[where], e.steps[where]
    finished, succeeded = status.translate(IS_FINISHED), status.translate(IS_SUCCESS)
    checkpoints = {e.checkpoints[origin & 0xFFFF] for origin in e.origins(own)}
    return _Sums(
        counts=tuple(status.count(kind) for kind in range(len(STATUSES))),
        steps=sum(compress(steps, finished)),
        success_steps=sum(compress(steps, succeeded)),
        wall_s=fsum(compress(e.wall_s[where], finished)),
        policy_s=fsum(compress(e.policy_s[where], finished)),
        checkpoint=reading.printable(max(checkpoints, default="")),
    )


def _row(policy: str, suite: str, task_id: int | None, task_name: str, s: _Sums) -> Row:
    missing, successes, failures, *errors = s.counts
    episodes = successes + failures
    return Row(
        policy=policy,
        suite=suite,
        task_id=task_id,
        task_name=task_name,
        episodes=episodes,
        successes=successes,
        errors=sum(errors),
        timeouts=s.counts[STATUSES.index("timeout")],
        missing=missing,
        mean_steps=s.steps / episodes if episodes else None,
        mean_success_steps=s.success_steps / successes if successes else None,
        mean_wall_s=s.wall_s / episodes if episodes else None,
        mean_policy_s=s.policy_s / episodes if episodes else None,
        checkpoint=s.checkpoint,
    )
