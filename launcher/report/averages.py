"""Means over tasks and suites, the way the field prints them: each task weighs the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from launcher.report.aggregate import Row
from rdt.spec.suites import PLUS, PLUS_AXES

ALL = "ALL"
"""Stands for the suite in the mean over several suites."""
VARIED = "PLUS"
"""Stands for the suites of LIBERO-plus, before one of its axes or ALL."""
UNCOUNTED = "libero_90"
"""Published means over suites leave it out."""


@dataclass(frozen=True)
class Average:
    """One policy over the tasks of a suite, or over suites (``suite`` ALL or of LIBERO-plus).

    ``rate`` is the mean of the rates of ``tasks`` tasks (for ALL of suites); None while one of
    them has no finished episode. Counts are sums.
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

    As in published tables, libero_90 is no part of the mean over suites, and LIBERO-plus's
    means, over an axis and over all, are of tasks.
    """
    by_policy: dict[str, dict[str, list[Row]]] = {}
    for row in tasks:
        by_policy.setdefault(row.policy, {}).setdefault(row.suite, []).append(row)
    found = []
    for policy, suites in by_policy.items():
        own = [_average(policy, suite, rows) for suite, rows in suites.items()]
        found += own
        found += [_average(policy, name, rows) for name, rows in _varied(suites).items()]
        usual = [a for a in own if a.suite not in PLUS]
        counted = [a for a in usual if a.suite != UNCOUNTED]
        if len(usual) > 1:
            found.append(_average(policy, ALL, counted, sum(a.tasks for a in counted)))
    return found


def _varied(suites: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Rows by axis of LIBERO-plus, and all of them, where several of its suites are there."""
    varied = {suite: rows for suite, rows in suites.items() if suite in PLUS}
    groups = {f"{VARIED} {axis}": f"_plus_{axis}" for axis in PLUS_AXES} | {f"{VARIED} {ALL}": ""}
    found = {
        name: [row for suite, rows in varied.items() if suite.endswith(end) for row in rows]
        for name, end in groups.items()
    }
    return {name: rows for name, rows in found.items() if rows and len(varied) > 1}


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
