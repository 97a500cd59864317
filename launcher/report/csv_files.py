"""``episodes.csv`` and ``summary.csv`` as text: the same run always gives the same bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from launcher.report.aggregate import Report, Row
from rdt.spec.record import Record

FORMULA_STARTS = ("=", "+", "-", "@")
SUMMARY_COLUMNS = (
    *("policy", "suite", "task_id", "task_name"),
    *("episodes", "successes", "errors", "missing"),
    *("rate", "ci_low", "ci_high", "rate_errors_as_failures"),
    *("mean_steps", "mean_success_steps", "mean_wall_s", "mean_policy_s", "checkpoint"),
    *("fingerprint", "mujoco", "robosuite", "simulator", "gl", "horizon", "max_steps", "settle"),
    *("camera_size", "wide_mm", "env_seed", "policy_seed"),
)


def episodes(report: Report) -> str:
    """One line per recorded episode, the columns being the fields of a record."""
    names = [field.name for field in fields(Record)]
    return _csv(names, (vars(record) for record in report.records))


def summary(report: Report) -> str:
    """One line per policy: counts, rate with its 95 % interval, means, protocol.

    Rates and bounds are fractions of 1, times in seconds; a cell without a value is empty.
    """
    return _csv(SUMMARY_COLUMNS, (_summary_row(report, row) for row in report.rows))


def _summary_row(report: Report, row: Row) -> dict[str, Any]:
    protocol = report.protocol
    low, high = row.interval or (None, None)
    return {
        **vars(protocol),
        **vars(row),
        "task_id": report.config["task"]["task_id"],
        "task_name": report.task_name,
        "rate": row.rate,
        "ci_low": low,
        "ci_high": high,
        "rate_errors_as_failures": row.rate_errors_as_failures,
        "fingerprint": protocol.fingerprint(),
        "horizon": protocol.execution_horizon,
        "settle": protocol.settle_steps,
    }


def _csv(columns: Iterable[str], rows: Iterable[dict[str, Any]]) -> str:
    names = list(columns)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in names])
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6f}"
    # Spreadsheets run text that begins like a formula; an apostrophe keeps it text.
    if isinstance(value, str) and value.lstrip().startswith(FORMULA_STARTS):
        return "'" + value
    return str(value)
