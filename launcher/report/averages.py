"""Means over tasks and suites, the way the field prints them: each task weighs the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from launcher.report.aggregate import Row

ALL = "ALL"
"""Stands for the suite in the mean over several suites."""
PUBLISHED = ("libero_spatial", "libero_object", "libero_goal", "libero_10")


@dataclass(frozen=True)
class Average:
    """One policy over the tasks of a suite, or over suites (``suite`` ALL).

    ``rate`` is the mean of the rates of ``tasks`` tasks (of suites); None while one of them
    has no finished episode. Counts are sums.
    """

    policy: str
    suite: str
    tasks: int
    episodes: int
    successes: int
    errors: int
    timeouts: int
    missing: int
    rate: float | None
    rate_errors_as_failures: float | None


def of(tasks: Iterable[Row]) -> list[Average]:
    """For each policy one average per suite and, with several suites, one over them.

    As in published tables, libero_90 is no part of the mean over suites.
    """
    by_policy: dict[str, dict[str, list[Row]]] = {}
    for row in tasks:
        by_policy.setdefault(row.policy, {}).setdefault(row.suite, []).append(row)
    found = []
    for policy, suites in by_policy.items():
        own = [_average(policy, suite, rows) for suite, rows in suites.items()]
        found += own
        counted = [a for a in own if a.suite in PUBLISHED] or own
        if len(own) > 1:
            found.append(_average(policy, ALL, counted, sum(a.tasks for a in counted)))
    return found


def _average(
    policy: str, suite: str, parts: Sequence[Row] | Sequence[Average], tasks: int | None = None
) -> Average:
    return Average(
        policy=policy,
        suite=suite,
        tasks=len(parts) if tasks is None else tasks,
        episodes=sum(p.episodes for p in parts),
        successes=sum(p.successes for p in parts),
        errors=sum(p.errors for p in parts),
        timeouts=sum(p.timeouts for p in parts),
        missing=sum(p.missing for p in parts),
        rate=_mean([p.rate for p in parts]),
        rate_errors_as_failures=_mean([p.rate_errors_as_failures for p in parts]),
    )


def _mean(rates: Sequence[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return sum(known) / len(known) if len(known) == len(rates) else None
