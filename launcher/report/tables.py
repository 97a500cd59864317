"""The result as plain data for a terminal of 80 columns and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from launcher.report import averages, evidence
from launcher.report.aggregate import Report, Row


@dataclass(frozen=True)
class Table:
    """A title, column names, rows of as many cells, and sentences to print below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sentences: tuple[str, ...]


def summary(report: Report) -> Table:
    """Policy, count, rate, interval and steps; errors and missing only when there are any."""
    extra = [name for name in ("errors", "missing") if any(getattr(r, name) for r in report.rows)]
    return Table(
        title=f"{report.protocol.suite} {evidence.tasks_text(report)}, protocol {report.protocol.fingerprint()}",
        columns=("policy", "successes", "rate %", "95 % interval", "mean steps", *extra),
        rows=tuple(_cells(row, extra) for row in report.rows),
        sentences=(
            evidence.verdict(report),
            *evidence.caveats(report),
            *evidence.comparisons(report),
        ),
    )


def document(report: Report) -> dict[str, Any]:
    """The same as JSON data; rates and interval bounds are fractions of 1, or null."""
    return {
        "name": report.name,
        "task": {"suite": report.protocol.suite, **report.config["task"], "name": report.task_name},
        "protocol": {**vars(report.protocol), "fingerprint": report.protocol.fingerprint()},
        "policies": [
            {
                **vars(row),
                "rate": row.rate,
                "interval": row.interval,
                "rate_errors_as_failures": row.rate_errors_as_failures,
            }
            for row in report.rows
        ],
        "tasks": [
            {**vars(row), "rate": row.rate, "interval": row.interval} for row in report.tasks
        ],
        "averages": [vars(average) for average in averages.of(report.tasks)],
        "sentences": list(summary(report).sentences),
        "files": [str(path) for path in sorted(report.run.report.glob("*.*")) if path.is_file()],
    }


def _cells(row: Row, extra: list[str]) -> tuple[str, ...]:
    return (
        row.policy,
        f"{row.successes}/{row.episodes}",
        evidence.percent(row.rate),
        evidence.interval_text(row),
        "–" if row.mean_steps is None else f"{row.mean_steps:.0f}",
        *(str(getattr(row, name)) for name in extra),
    )
