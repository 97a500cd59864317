"""The result as plain data for a terminal of 80 columns and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from launcher.report import averages, compare, evidence
from launcher.report.aggregate import Report, Row
from launcher.report.compare import Pair


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
        title=f"{report.protocol.suite} {evidence.tasks_text(report)}, "
        f"protocol {report.protocol.fingerprint()}",
        columns=("policy", "successes", "rate %", "95 % interval", "mean steps", *extra),
        rows=tuple(_cells(row, extra) for row in report.rows),
        sentences=(
            evidence.verdict(report),
            *filter(None, [evidence.scope(report)]),
            *_by_axis(report),
            *evidence.caveats(report),
            *evidence.comparisons(report),
        ),
    )


def _by_axis(report: Report) -> list[str]:
    """Rates on the axes of LIBERO-plus in a sentence a policy, when several of its suites ran."""
    means = [a for a in averages.of(report.tasks) if a.suite.startswith(f"{averages.VARIED} ")]
    told = dict.fromkeys(report.policies, "")
    for a in means:
        told[a.policy] += f", {a.suite.split()[1]} {evidence.percent(a.rate)}"
    return [f"{policy} in % of varied tasks: {text[2:]}." for policy, text in told.items() if text]


def merged(rows: Sequence[Row]) -> Table:
    """Several runs as one result: a line per policy and task, then the averages."""
    lines = [
        (row.policy, f"{row.suite} {row.task_id}", *_cells(row, ["errors", "missing"])[1:])
        for row in rows
    ]
    lines += [
        (
            a.policy,
            f"{a.suite} AVG",
            f"{a.successes}/{a.episodes}",
            evidence.percent(a.rate),
            "",
            "",
            str(a.errors),
            str(a.missing),
        )
        for a in averages.of(rows)
    ]
    columns = ("policy", "task", "successes", "rate %", "95 % interval", "mean steps")
    return Table("Tasks of all runs", (*columns, "errors", "missing"), tuple(lines), ())


def comparison(pairs: Sequence[Pair]) -> Table:
    """The runs with their rates, and one sentence for each pair of runs."""
    named = [(pairs[0].first, pairs[0].first_name), *((p.second, p.second_name) for p in pairs)]
    rows = [(name, report, evidence.main_row(report)) for report, name in named]
    return Table(
        title="Runs on equal episodes",
        columns=("run", "policy", "horizon", "successes", "rate %", "95 % interval", "errors"),
        rows=tuple(
            (
                name,
                row.policy,
                str(r.protocol.execution_horizon),
                *_cells(row, [])[1:4],
                str(row.errors),
            )
            for name, r, row in rows
        ),
        sentences=tuple(
            sentence
            for pair in pairs
            for sentence in (compare.sentence(pair), *compare.caveats(pair))
        ),
    )


def comparison_document(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """The same as JSON data; differences are of fractions of 1."""
    return [
        {
            "first": str(pair.first.run.root),
            "second": str(pair.second.run.root),
            "protocol_differences": [list(d) for d in pair.differences],
            "other_scene": pair.other_scene,
            "sentence": compare.sentence(pair),
            **{
                name: {**vars(c), "pairs": c.pairs, "difference": c.difference}
                | {"interval": c.interval, "p": c.p}
                for name, c in (
                    ("errors_left_out", pair.finished),
                    ("errors_as_failures", pair.errors_as_failures),
                )
            },
        }
        for pair in pairs
    ]


def document(report: Report) -> dict[str, Any]:
    """The same as JSON data; rates and interval bounds are fractions of 1, or null."""
    return {
        "name": report.name,
        "task": {**report.config["task"], "suite": report.protocol.suite, "name": report.task_name},
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
