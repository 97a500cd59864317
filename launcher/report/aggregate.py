"""From the records of a run to counts: which episodes count, and what they add up to.

Only episodes that the plan names count; whatever is missing is listed, never
averaged away. Records of two protocols, or of two checkpoints under one policy's
name, have no common rate and are refused. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.core.runs import RunDir
from launcher.report import reading
from launcher.report.intervals import Interval, wilson
from rdt.spec.protocol import Protocol
from rdt.spec.record import ERRORS, EpisodeKey, Record


@dataclass(frozen=True)
class Row:
    """One policy on the task. ``episodes`` ended as success or failure; ``errors`` did not.

    Means are over ``episodes``: ``mean_steps`` in control steps, ``mean_wall_s`` and
    ``mean_policy_s`` in seconds; ``mean_success_steps`` is over the successes alone.
    """

    policy: str
    episodes: int
    successes: int
    errors: int
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

    ``records`` are the planned ones, one per key, in key order, their text made
    printable; ``unplanned`` counts those that were left out.
    """

    run: RunDir
    name: str
    site: str
    config: dict[str, Any]
    protocol: Protocol
    task_name: str
    records: tuple[Record, ...]
    rows: tuple[Row, ...]
    missing: tuple[EpisodeKey, ...]
    unplanned: int
    duplicates: int
    torn_files: tuple[str, ...]

    def row(self, policy: str) -> Row | None:
        """The row of ``policy``, or None when it was not evaluated."""
        return next((row for row in self.rows if row.policy == policy), None)

    def statuses(self, policy: str) -> dict[tuple[int, int], str]:
        """Status by (init state, trial) of the recorded episodes of ``policy``."""
        return {(r.init_state, r.trial): r.status for r in self.records if r.policy == policy}


def load(run: RunDir) -> Report:
    """Read and count the records of ``run``.

    Raises UsageError RDTL-U014 when it is no run, RdtlError RDTL-E037 when it has no
    record, RDTL-E030 for an unreadable one, RefusedError RDTL-E021 or RDTL-E038 when
    records of two protocols or two checkpoints lie together.
    """
    plan = reading.plan(run)
    found = reading.all_records(run)
    planned = planned_keys(plan["config"])
    wanted = set(planned)
    kept = tuple(reading.printable_record(r) for r in found.records if r.key in wanted)
    if not kept:
        raise reading.nothing_recorded(run, len(planned), len(found.records))
    protocol = reading.one_protocol(run, kept)
    reading.one_checkpoint_each(run, kept)
    recorded = {r.key for r in kept}
    missing = tuple(key for key in planned if key not in recorded)
    return Report(
        run=run,
        name=plan["name"],
        site=plan["site"],
        config=plan["config"],
        protocol=protocol,
        task_name=kept[0].task_name,
        records=kept,
        rows=tuple(
            _row(policy, [r for r in kept if r.policy == policy], missing)
            for policy in dict.fromkeys(key.policy for key in planned)
        ),
        missing=missing,
        unplanned=len(found.records) - len(kept),
        duplicates=found.duplicates,
        torn_files=found.torn_files,
    )


def planned_keys(config: dict[str, Any]) -> list[EpisodeKey]:
    """Every episode that the configuration asks for, policies in their given order."""
    task, evaluate = config.get("task"), config.get("evaluate")
    if not task or not evaluate:
        return []
    return [
        EpisodeKey(policy, task["suite"], task["task_id"], init_state, trial)
        for policy in dict.fromkeys(evaluate["policies"])
        for init_state in range(*evaluate["init_states"])
        for trial in range(evaluate["trials"])
    ]


def _row(policy: str, own: Sequence[Record], missing: Sequence[EpisodeKey]) -> Row:
    finished = [r for r in own if r.status not in ERRORS]
    successes = [r for r in finished if r.status == "success"]
    return Row(
        policy=policy,
        episodes=len(finished),
        successes=len(successes),
        errors=len(own) - len(finished),
        missing=sum(key.policy == policy for key in missing),
        mean_steps=_mean(r.steps for r in finished),
        mean_success_steps=_mean(r.steps for r in successes),
        mean_wall_s=_mean(r.wall_s for r in finished),
        mean_policy_s=_mean(r.policy_s for r in finished),
        checkpoint=own[0].checkpoint if own else "",
    )


def _mean(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else None
