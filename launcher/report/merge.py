"""Runs of one policy on different tasks as one result: tasks, suites, average."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.core.errors import RefusedError
from launcher.report import compare
from launcher.report.aggregate import Report, Row


def merge(reports: Sequence[Report]) -> list[Row]:
    """The rows of all tasks of all runs, by policy.

    Raises RefusedError RDTL-E063 when protocols differ (limits of other suites are no difference),
    RDTL-E064 when a policy was evaluated twice on a task or with two checkpoints.
    """
    for other in reports[1:]:
        if found := compare.differing_fields(reports[0].protocol, other.protocol):
            raise RefusedError(
                "RDTL-E063",
                "runs of different protocols have no common rate",
                where="; ".join(
                    f"{n} {a} in {reports[0].run.root.name}, {b} in {other.run.root.name}"
                    for n, a, b in found
                ),
                why="their average would measure two things at once",
                fix="evaluate again under one protocol, or look at them side by side: --compare "
                + " ".join(f"--across {name}" for name, _, _ in found),
            )
    rows = [row for report in reports for row in report.tasks]
    _refuse_mixtures(rows)
    return sorted(rows, key=lambda row: [r.policy for r in rows].index(row.policy))


def _refuse_mixtures(rows: Sequence[Row]) -> None:
    seen: dict[tuple[str, str, int | None], Row] = {}
    checkpoints: dict[str, str] = {}
    for row in rows:
        key = (row.policy, row.suite, row.task_id)
        checkpoint = row.checkpoint
        if row.episodes or row.errors:  # one without a record names no network
            checkpoint = checkpoints.setdefault(row.policy, row.checkpoint)
        if key in seen or checkpoint != row.checkpoint:
            raise RefusedError(
                "RDTL-E064",
                "these runs do not add up to one result",
                where=f"{row.policy} on {row.suite} task {row.task_id}: "
                + ("twice" if key in seen else f"checkpoints {checkpoint} and {row.checkpoint}"),
                why="an average counts each task once, of one network",
                fix="name the runs that belong together, or compare them: --compare",
            )
        seen[key] = row
