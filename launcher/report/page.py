"""``index.html``: the whole result on one page that needs no network and no script."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import html
from launcher.report import charts, evidence, sources
from launcher.report.aggregate import Report

TEMPLATE = "report.html.j2"
MARKS = {
    "success": "●",
    "fail": "×",
    "env_error": "!",
    "policy_error": "!",
    "missing": "·",
}
GRID_COLUMNS = 25


@dataclass(frozen=True)
class GridBlock:
    """Up to 25 initial states side by side; per policy and state the statuses of its trials."""

    init_states: range
    rows: list[tuple[str, list[list[str]]]]


def render(report: Report) -> str:
    """The page as HTML text; everything from outside is escaped by the template engine.

    Raises UsageError RDTL-U015 when jinja2 is not installed.
    """
    environment = html.environment(
        Path(__file__).parent,
        why="episodes.csv and summary.csv are written and complete; only index.html is not",
        again=f"rdtl report {report.run.root}",
    )
    from markupsafe import Markup

    environment.filters["tie"] = _tie
    loss = sources.loss(report.run)
    curve = charts.loss_curve(loss.points) if loss and len(loss.points) > 1 else None
    return environment.get_template(TEMPLATE).render(
        **_context(report),
        loss=loss,
        curve=Markup(curve) if curve else None,
        bars=Markup(charts.bars(report.rows, evidence.main_row(report).policy)),
    )


def _context(report: Report) -> dict[str, Any]:
    videos = sources.videos(report.run)
    return {
        "report": report,
        "evidence": evidence,
        "main": evidence.main_row(report),
        "task": report.config["task"],
        "evaluate": report.config["evaluate"],
        "instruction": report.task_name.replace("_", " "),
        "when": sources.when(report.run),
        "grid": grid(report),
        "marks": MARKS,
        "failed": [r for r in report.records if r.error],
        "videos": {
            "success": [v for v in videos if v.status == "success"],
            "failure": [v for v in videos if v.status != "success"],
        },
        "data": sources.data(report.run),
        "versions": sources.versions(report.run),
        "protocol": protocol_lines(report),
        "same_fixtures": _same_fixtures(report),
    }


def grid(report: Report) -> list[GridBlock]:
    """Every planned episode: blocks of initial states, rows of policies, trials in each cell."""
    evaluate = report.config["evaluate"]
    first, end = evaluate["init_states"]
    blocks = []
    for start in range(first, end, GRID_COLUMNS):
        states = range(start, min(end, start + GRID_COLUMNS))
        blocks.append(
            GridBlock(
                states,
                [
                    (row.policy, _cells(report.statuses(row.policy), states, evaluate["trials"]))
                    for row in report.rows
                ],
            )
        )
    return blocks


def _cells(statuses: dict[tuple[int, int], str], states: range, trials: int) -> list[list[str]]:
    return [[statuses.get((s, trial), "missing") for trial in range(trials)] for s in states]


def protocol_lines(report: Report) -> list[tuple[str, str]]:
    """The protocol field by field, the fingerprint first, lists joined by commas."""
    fields = {
        name: ", ".join(value) if isinstance(value, tuple) else str(value)
        for name, value in vars(report.protocol).items()
    }
    return [("fingerprint", report.protocol.fingerprint()), *fields.items()]


def _tie(sentence: str) -> str:
    """Spaces inside ``77.8 %`` and ``p = 0.625`` become no-break spaces."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\bp) (?=[<=])|(?<=[<=]) (?=\d)", "\u00a0", sentence)


def _same_fixtures(report: Report) -> bool:
    """Whether fixture positions were recorded and agree at every initial state."""
    recorded = any(r.fixtures_sha256 for r in report.records)
    return recorded and not evidence.different_fixtures(report)
