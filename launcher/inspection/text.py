"""A data set on a terminal, from 80 columns on."""

from __future__ import annotations

import shutil
import textwrap

from launcher.inspection import words
from launcher.inspection.words import Inspection
from launcher.output import MARKS, Output

INDENT = 2


def show(output: Output, found: Inspection) -> None:
    """Print facts, tasks, conventions, coverage and what verification finds."""
    width = min(max(shutil.get_terminal_size().columns, 60), 120)
    output.text(found["path"])
    for name, value in words.facts(found):
        output.text(f"  {name:<10}{value}")
    _tasks(output, found, width)
    _conventions(output, found)
    _coverage(output, found, width)
    output.text(f"\n{words.verdict(found)}")
    for finding in words.telling(found):
        line = f"{MARKS[finding['severity']]}  {finding['code']}  {finding['what']}"
        output.text(textwrap.fill(line, width, subsequent_indent=" " * 17))
    if words.telling(found):
        output.text("rdtl data verify says where, why and what to do")


def _tasks(output: Output, found: Inspection, width: int) -> None:
    """A row a task; long names go on below."""
    columns = ["task", "episodes", "steps", "min", "median", "max"]
    cells = [
        [str(task[key]) for key in ("episodes", "steps", "min")]
        + [f"{task['median']:g}", str(task["max"])]
        for task in found["tasks"]
    ]
    numbers = [max(map(len, column)) for column in zip(columns[1:], *cells, strict=True)]
    room = width - INDENT - sum(numbers) - 2 * len(numbers)
    rows = []
    for task, own in zip(found["tasks"], cells, strict=True):
        first, *more = textwrap.wrap(words.task_name(task), room) or [""]
        rows += [[first, *own], *([line, *[""] * len(own)] for line in more)]
    output.table("tasks", columns, rows)


def _conventions(output: Output, found: Inspection) -> None:
    rows = [
        [verdict["what"], verdict["declared"], verdict["found"]] for verdict in found["conventions"]
    ]
    if rows:
        output.table("conventions", ["", "declared", "the data say"], rows)
    else:
        output.text("\nconventions: nothing can be told from data with NaN")


def _coverage(output: Output, found: Inspection, width: int) -> None:
    windows = words.windows(found)
    rows = []
    for order, _, own in words.orders(found):
        shares = [words.percent(own[window]["seen"]) for window in windows]
        rows.append([order, *shares, words.percent(own["all"]["never"])])
    title = "coverage: share of the steps from which one epoch starts a chunk"
    output.table(title, ["order", *windows.values(), "never"], rows)
    for order, about, _ in words.orders(found):
        output.text(textwrap.fill(f"  {order}: {about}", width, subsequent_indent="    "))
