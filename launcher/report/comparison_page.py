"""``comparison.html``: several runs on the same episodes, on one page without network or script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launcher.report import charts, compare, evidence, page, sources
from launcher.report.aggregate import Report, Row
from launcher.report.compare import Pair

TEMPLATE = "comparison.html.j2"
SHOWN = 40
"""Episodes that the runs disagree on, at most; the rest is in episodes.csv."""


@dataclass(frozen=True)
class Disagreement:
    """One episode that some runs solved and others did not; a status per run."""

    episode: str
    statuses: list[str]


def render(pairs: Sequence[Pair]) -> str:
    """The page as HTML text; raises UsageError RDTL-U015 when jinja2 is not installed."""
    reports = [pairs[0].first, *(pair.second for pair in pairs)]
    rows = [evidence.main_row(report) for report in reports]
    names = labels(reports)
    shown = [
        (name, p.finished.difference, p.finished.interval)
        for name, p in zip(names[1:], pairs, strict=True)
    ]
    pictures = {
        "bars": charts.bars(rows, rows[0].policy, names),
        "differences": charts.differences(shown),
    }
    found = disagreements(reports)
    values = {
        "pairs": pairs,
        "runs": list(zip(names, reports, rows, strict=True)),
        "compare": compare,
        "evidence": evidence,
        "heat": page.heat({**dict(zip(names, map(_of, reports), strict=True)), **_memory(reports)}),
        "horizons": len({r.protocol.execution_horizon for r in reports}) > 1,
        "references": [
            (name, said)
            for name, report in zip(names, reports, strict=True)
            if (said := evidence.comparisons(report))
        ],
        "disagreements": found[:SHOWN],
        "more": max(0, len(found) - SHOWN),
        "marks": page.MARKS,
        "failures": [(n, _failures(r)) for n, r in zip(names, reports, strict=True)],
        "protocol": _side_by_side([page.protocol_lines(r) for r in reports]),
        "versions": _side_by_side([sources.versions(r.run) for r in reports]),
    }
    return page.fill(TEMPLATE, pictures, values, reports[0].run.root)


def labels(reports: Sequence[Report]) -> list[str]:
    """A name for each run, with the horizon where horizons differ."""
    several = len({r.protocol.execution_horizon for r in reports}) > 1
    return [
        f"{name}, horizon {report.protocol.execution_horizon}" if several else name
        for name, report in zip(compare.names(reports), reports, strict=True)
    ]


def disagreements(reports: Sequence[Report]) -> list[Disagreement]:
    """Episodes of all runs that did not end everywhere alike, in the order of the first plan."""
    found = [
        {key[1:]: status for key, status in r.statuses(evidence.main_row(r).policy).items()}
        for r in reports
    ]
    shared = [key for key in found[0] if all(key in other for other in found)]
    return [
        Disagreement(
            f"{suite} {task_id}, initial state {state}" + (f", trial {trial}" if trial else ""),
            [own[suite, task_id, state, trial] for own in found],
        )
        for suite, task_id, state, trial in shared
        if len({own[suite, task_id, state, trial] for own in found}) > 1
    ]


def _of(report: Report) -> list[Row]:
    policy = evidence.main_row(report).policy
    return [row for row in report.tasks if row.policy == policy]


def _memory(reports: Sequence[Report]) -> dict[str, list[Row]]:
    """Blind replay's rates by task, of the first run that has them: what memory alone reaches."""
    found = next((report for report in reports if report.row("replay")), None)
    if found is None or evidence.main_row(found).policy == "replay":
        return {}
    return {"blind replay": [row for row in found.tasks if row.policy == "replay"]}


def _failures(report: Report) -> list[sources.Video]:
    policy = evidence.main_row(report).policy
    return [v for v in sources.videos(report.run) if v.status != "success" and v.policy == policy]


def _side_by_side(columns: Sequence[list[tuple[str, str]]]) -> list[tuple[str, list[str], bool]]:
    """(name, value in each run, whether they differ) over all names."""
    tables = [dict(column) for column in columns]
    names = dict.fromkeys(name for column in columns for name, _ in column)
    lines = [(name, [table.get(name, "–") for table in tables]) for name in names]
    return [(name, values, len(set(values)) > 1) for name, values in lines]
