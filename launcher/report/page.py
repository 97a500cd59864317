"""``index.html``: the whole result on one page that needs no network and no script."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from launcher import html
from launcher.report import averages, charts, evidence, reading, sources
from launcher.report.aggregate import Report, Row
from launcher.report.averages import Average
from rdt.spec.record import EpisodeKey

TEMPLATE = "report.html.j2"
MARKS = {
    "success": "●",
    "fail": "×",
    "timeout": "!",
    "env_error": "!",
    "policy_error": "!",
    "missing": "·",
}
GRID_COLUMNS = 25
NONE = (None, "")
FEW_TASKS = 3
MOST_TASKS = 300
"""The episodes of more tasks than that are shown when asked for."""
SHOWN_ERRORS = 30


@dataclass(frozen=True)
class GridBlock:
    """Up to 25 initial states side by side; per policy and state the statuses of its trials."""

    task: str
    init_states: range
    rows: list[tuple[str, list[list[str]]]]


def render(report: Report) -> str:
    """The page of one run as HTML text; everything from outside is escaped by the engine.

    Raises UsageError RDTL-U015 when jinja2 is not installed.
    """
    main = evidence.main_row(report)
    loss = sources.loss(report.run)
    successes = report.lengths(main.policy, "success")
    limit = max(report.protocol.max_steps.values())
    pictures = {
        "curve": charts.loss_curve(loss.points) if loss and len(loss.points) > 1 else None,
        "bars": charts.bars(report.rows, main.policy),
        "lengths": charts.lengths(successes, limit) if successes else None,
        "phases": charts.phases(report.rows),
    }
    return fill(TEMPLATE, pictures, {**_context(report), "loss": loss}, report.run.root)


def fill(
    template: str, pictures: Mapping[str, str | None], values: Mapping[str, Any], run: Path
) -> str:
    """A template with ``values``, which are escaped, and ``pictures``, which are SVG of ours.

    Raises UsageError RDTL-U015 when jinja2 is not installed.
    """
    environment = html.environment(
        Path(__file__).parent,
        why="the tables are written and complete; only the page is not",
        again=f"rdtl report {run}",
    )
    from markupsafe import Markup

    environment.filters |= {"tie": _tie, "breakable": _breakable}
    svg = {name: picture and Markup(picture) for name, picture in pictures.items()}
    return environment.get_template(template).render(**values, **svg)


def _context(report: Report) -> dict[str, Any]:
    failed = report.errors()
    return {
        "report": report,
        "evidence": evidence,
        "main": evidence.main_row(report),
        "task": report.config["task"],
        "evaluate": report.config["evaluate"],
        "title": _title(report),
        "when": sources.when(report.run),
        "grid": grid(report),
        "heat": heat({p: [r for r in report.tasks if r.policy == p] for p in report.policies})
        if len(report.episodes.planned.tasks) > 1
        else None,
        "tasks": evidence.tasks_text(report),
        "marks": MARKS,
        "few": len(report.episodes.planned.tasks) <= FEW_TASKS,
        "failed": failed[:SHOWN_ERRORS],
        "failed_more": len(failed[SHOWN_ERRORS:]),
        "videos": videos(report),
        "data": sources.data(report.run),
        "weights": reading.weights(report.run),
        "versions": sources.versions(report.run),
        "protocol": protocol_lines(report),
        "same_fixtures": _same_fixtures(report),
    }


def _title(report: Report) -> str:
    """The instruction of the one task, or which tasks they are."""
    tasks = report.episodes.planned.tasks
    if len(tasks) == 1:
        return report.task_name.replace("_", " ")
    return f"{len(tasks)} tasks of {report.protocol.suite}"


def videos(report: Report) -> list[tuple[str, list[sources.Video], int]]:
    """Per outcome that was asked for: heading, replays, how many episodes ended so."""
    found, main = sources.videos(report.run), evidence.main_row(report)
    counts = {"success": main.successes, "fail": main.episodes - main.successes}
    headings = {"success": "Successes", "fail": "Failures"}
    return [
        (headings[outcome], [v for v in found if v.status == outcome], counts[outcome])
        for outcome in report.config["evaluate"]["video_outcomes"]
    ]


def grid(report: Report) -> list[GridBlock]:
    """Every planned episode: per task blocks of initial states, rows of policies, trials."""
    planned = report.episodes.planned
    statuses = {policy: report.statuses(policy) for policy in planned.policies}
    blocks = []
    for suite, task_id in planned.tasks:
        for start in range(0, len(planned.init_states), GRID_COLUMNS):
            states = planned.init_states[start : start + GRID_COLUMNS]
            rows = [
                (policy, [_cell(own, policy, suite, task_id, s, planned.trials) for s in states])
                for policy, own in statuses.items()
            ]
            blocks.append(GridBlock(f"{suite} {task_id}", states, rows))
    return blocks


def _cell(
    statuses: dict[EpisodeKey, str], policy: str, suite: str, task_id: int, state: int, trials: int
) -> list[str]:
    """Statuses of the trials of one initial state."""
    keys = (EpisodeKey(policy, suite, task_id, state, trial) for trial in range(trials))
    return [statuses.get(key, "missing") for key in keys]


class HeatRow(NamedTuple):
    """A task or an average; ``cells`` are a rate in [0, 1] and its count by column.

    ``words`` is the instruction: empty of an average, and of a task without a record.
    """

    name: str
    words: str
    cells: list[tuple[float | None, str]]
    average: bool = False


@dataclass(frozen=True)
class Heat:
    """Success rates: a row per task (and suite average), a column per run or policy."""

    columns: list[str]
    rows: list[HeatRow]


def heat(columns: Mapping[str, Sequence[Row]]) -> Heat:
    """Rates by task of each column's rows, the averages of suites below.

    Of more than MOST_TASKS tasks the averages alone: each is in tasks.csv.
    """
    words = _words(row for rows in columns.values() for row in rows)
    cells = [{(r.suite, r.task_id): _counted(r) for r in rows} for rows in columns.values()]
    means = [{a.suite: _counted(a) for a in averages.of(rows)} for rows in columns.values()]
    lines = [
        HeatRow(f"{task[0]} {task[1]}", said, [own.get(task, NONE) for own in cells])
        for task, said in words.items()
        if len(words) <= MOST_TASKS
    ]
    several = [suite for suite, _ in words]
    suites = [suite for suite in dict.fromkeys(several) if several.count(suite) > 1]
    suites += [name for name in {name: 0 for own in means for name in own} if name not in several]
    lines += [
        HeatRow(f"{suite} AVG", "", [own.get(suite, NONE) for own in means], average=True)
        for suite in suites
    ]
    return Heat(list(columns), lines)


def _words(rows: Iterable[Row]) -> dict[tuple[str, int | None], str]:
    """The instruction of each task; rows without a record lack it, also beside one that has it."""
    words = dict[tuple[str, int | None], str]()
    for row in rows:
        task = row.suite, row.task_id
        words[task] = words.get(task) or row.task_name.replace("_", " ")
    return words


def _counted(row: Row | Average) -> tuple[float | None, str]:
    return row.rate, f"{row.successes}/{row.episodes}"


def protocol_lines(report: Report) -> list[tuple[str, str]]:
    """The protocol field by field, the fingerprint first, lists joined by commas."""
    fields = {
        name: ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for name, value in report.protocol.lines().items()
    }
    return [("fingerprint", report.protocol.fingerprint()), *fields.items()]


def _breakable(text: str) -> Any:
    """``text`` escaped, with places where a long name may go on in the next line."""
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_.+/])", text))


def _tie(sentence: str) -> str:
    """Spaces inside ``77.8 %`` and ``p = 0.625`` become no-break spaces."""
    return re.sub(r"(?<=\d) (?=%)|(?<=\bp) (?=[<=])|(?<=[<=]) (?=\d)", "\u00a0", sentence)


def _same_fixtures(report: Report) -> bool:
    """Whether fixture positions were recorded and agree at every initial state."""
    return any(report.episodes.fixtures) and not report.episodes.odd
