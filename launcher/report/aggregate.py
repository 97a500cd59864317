"""From the records of a run to counts: which episodes count, and what they add up to.

Only episodes that the plan names count; whatever is missing is listed, never
averaged away. Records of two protocols, or of two checkpoints under one policy's
name, have no common rate and are refused. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from math import fsum
from typing import Any

from launcher.core.runs import RunDir
from launcher.report import planned, reading
from launcher.report.intervals import Interval, wilson
from launcher.report.layouts import STATUSES
from launcher.report.shards import FINISHED, Episodes
from rdt.spec.protocol import Protocol
from rdt.spec.record import EpisodeKey, Record


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
    record, RDTL-E030 for an unreadable one, RefusedError RDTL-E021 or RDTL-E038 when
    records of two protocols or two checkpoints lie together.
    """
    plan = reading.plan(run)
    asked = planned.from_config(plan["config"])
    episodes = reading.episodes(run, asked)
    if not any(episodes.status):
        raise reading.nothing_recorded(run, len(asked), episodes.unplanned)
    protocol = reading.one_protocol(run, episodes)
    reading.one_checkpoint_each(run, episodes)
    tasks = tuple(
        _row(episodes, policy, task, own) for policy, task, own in episodes.planned.blocks()
    )
    each = len(asked.tasks) * asked.per_task
    rows = tuple(
        _row(episodes, policy, None, range(i * each, (i + 1) * each))
        for i, policy in enumerate(asked.policies)
    )
    return Report(run, plan["name"], plan["site"], plan["config"], protocol, episodes, rows, tasks)


def _row(e: Episodes, policy: str, task: tuple[str, int] | None, own: range) -> Row:
    """Counts of consecutive episodes; ``task`` None stands for all tasks of the plan."""
    where = slice(own.start, own.stop)
    counts = [e.status.count(kind, own.start, own.stop) for kind in range(len(STATUSES))]
    finished = [0 < status <= FINISHED for status in e.status[where]]
    succeeded = [status == 1 for status in e.status[where]]
    checkpoints = {e.checkpoints[e.origin[n] & 0xFFFF] for n in own if e.status[n]}
    suites = dict.fromkeys(suite for suite, _ in e.planned.tasks)
    return Row(
        policy=policy,
        suite=task[0] if task else ", ".join(suites),
        task_id=task[1] if task else None,
        task_name=reading.printable(e.task_names.get(task, "")) if task else "",
        episodes=counts[1] + counts[2],
        successes=counts[1],
        errors=sum(counts[FINISHED + 1 :]),
        timeouts=counts[STATUSES.index("timeout")],
        missing=counts[0],
        mean_steps=_mean(compress(e.steps[where], finished)),
        mean_success_steps=_mean(compress(e.steps[where], succeeded)),
        mean_wall_s=_mean(compress(e.wall_s[where], finished)),
        mean_policy_s=_mean(compress(e.policy_s[where], finished)),
        checkpoint=reading.printable(max(checkpoints, default="")),
    )


def _mean(values: Iterable[float]) -> float | None:
    numbers: Sequence[float] = list(values)
    return fsum(numbers) / len(numbers) if numbers else None
