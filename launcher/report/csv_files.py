"""``episodes.csv``, ``summary.csv``, ``tasks.csv`` as text: one run always gives the same bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from launcher.report import averages
from launcher.report.aggregate import Report, Row
from launcher.report.averages import Average
from launcher.report.layouts import guarded
from rdt.spec.record import Record

SUMMARY_COLUMNS = (
    *("policy", "suite", "task_id", "task_name"),
    *("episodes", "successes", "errors", "missing"),
    *("rate", "ci_low", "ci_high", "rate_errors_as_failures"),
    *("mean_steps", "mean_success_steps", "mean_wall_s", "mean_policy_s", "checkpoint"),
    *("fingerprint", "mujoco", "robosuite", "simulator", "gl", "horizon", "max_steps", "settle"),
    *("camera_size", "wide_mm", "env_seed", "policy_seed"),
)
TASK_COLUMNS = (
    *("dataset_name", "task_id", "task_name", "instruction", "num_traj", "episode_done_count"),
    *("success_rate", "checkpoint_path", "video_dir"),
    *("policy", "ci_low", "ci_high", "errors", "timeouts", "missing"),
    *("rate_errors_as_failures", "mean_steps", "mean_wall_s", "mean_policy_s", "fingerprint"),
)


def episodes(report: Report) -> str:
    """One line per recorded episode, the columns being the fields of a record."""
    names = [field.name for field in fields(Record)]
    return table(names, (vars(record) for record in report.records()))


def summary(report: Report) -> str:
    """One line per policy: counts, rate with its 95 % interval, means, protocol.

    Rates and bounds are fractions of 1, times in seconds; a cell without a value is empty.
    """
    return table(SUMMARY_COLUMNS, (_summary_row(report, row) for row in report.rows))


def _summary_row(report: Report, row: Row) -> dict[str, Any]:
    protocol = report.protocol
    low, high = row.interval or (None, None)
    return {
        **protocol.lines(),
        **vars(row),
        **_one_task(report),
        "rate": row.rate,
        "ci_low": low,
        "ci_high": high,
        "rate_errors_as_failures": row.rate_errors_as_failures,
        "fingerprint": protocol.fingerprint(),
        "horizon": protocol.execution_horizon,
        "settle": protocol.settle_steps,
    }


def _one_task(report: Report) -> dict[str, Any]:
    """The task of a run of one task; of several, nothing but that they are all meant."""
    if len(report.episodes.planned.tasks) > 1:
        return {"task_id": "all", "task_name": ""}
    return {"task_id": report.tasks[0].task_id, "task_name": report.task_name}


def tasks(report: Report) -> str:
    """One line per policy and task, then per suite (task_id AVG), then over all suites.

    The first nine columns are those that published RDT evaluations write: ``num_traj`` are the
    episodes that ended without an error, ``episode_done_count`` the successes among them,
    ``success_rate`` a fraction of 1. An AVG line holds the mean of the rates above it.
    """
    lines = [_task_line(report, row) for row in report.tasks]
    lines += [_average_line(report, a) for a in averages.of(report.tasks)]
    return table(
        TASK_COLUMNS, sorted(lines, key=lambda line: report.policies.index(line["policy"]))
    )


def _task_line(report: Report, row: Row) -> dict[str, Any]:
    low, high = row.interval or (None, None)
    return {
        **vars(row),
        **_places(report, row.policy),
        "dataset_name": row.suite,
        "instruction": row.task_name.replace("_", " "),
        "num_traj": row.episodes,
        "episode_done_count": row.successes,
        "success_rate": row.rate,
        "ci_low": low,
        "ci_high": high,
        "rate_errors_as_failures": row.rate_errors_as_failures,
    }


def _average_line(report: Report, average: Average) -> dict[str, Any]:
    rest = dict.fromkeys(TASK_COLUMNS)
    return {
        **rest,
        **vars(average),
        **_places(report, average.policy),
        "dataset_name": average.suite,
        "task_id": "AVG",
        "num_traj": average.episodes,
        "episode_done_count": average.successes,
        "success_rate": average.rate,
    }


def _places(report: Report, policy: str) -> dict[str, str]:
    """What all lines of a policy share."""
    evaluate = report.config["evaluate"]
    named = {"rdt": evaluate["checkpoint"] or str(report.run.policy), "server": evaluate["server"]}
    return {
        "checkpoint_path": named.get(policy, ""),
        "video_dir": str(report.run.videos),
        "fingerprint": report.protocol.fingerprint(),
    }


def table(columns: Iterable[str], rows: Iterable[dict[str, Any]]) -> str:
    """A header and a line per row; cells that a spreadsheet would run are guarded."""
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
    return guarded(value) if isinstance(value, str) else str(value)
