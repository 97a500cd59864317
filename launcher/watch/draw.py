"""One frame: every run as a few lines that fit the width of the terminal."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from rich.text import Text

from launcher.judges import State, Task
from launcher.progress import clock
from launcher.status import RunStatus, StageStatus
from launcher.watch.figures import TASKS, Figures, of

STYLE: dict[State, str] = {
    "done": "green",
    "running": "cyan",
    "waiting": "dim",
    "failed": "bold red",
    "gone": "yellow",
    "unknown": "magenta",
    "unsubmitted": "dim",
}
GLYPHS: dict[State, tuple[str, str]] = {
    "done": ("■", "#"),
    "running": ("▶", ">"),
    "waiting": ("·", "."),
    "failed": ("✗", "x"),
    "gone": ("!", "!"),
    "unknown": ("?", "?"),
    "unsubmitted": ("-", "-"),
}
"""A task in a terminal that knows Unicode, and in one that does not."""
PRESSING: tuple[State, ...] = ("failed", "gone", "unknown", "running", "waiting", "unsubmitted")
"""Which state a cell shows that stands for several tasks: the first that any of them has."""
SPEAKING: tuple[State, ...] = ("waiting", "gone", "unknown", "unsubmitted")
"""States that have a reason beside the error of a failure."""
BARS = "▁▂▃▄▅▆▇█"
MOST_BARS = 40
NAME = 11
GRID_LINES = 4


def frame(
    runs: Sequence[RunStatus], width: int, now: float | None = None, plain: bool = False
) -> list[Text]:
    """Lines of at most ``width`` columns; ``plain`` for terminals without Unicode."""
    now = time.time() if now is None else now
    lines: list[Text] = []
    for one in runs:
        lines += [_head(one, width, now)]
        for stage in one.stages:
            lines += _stage(stage, of(one, stage, now), width, plain)
        lines.append(Text())
    for line in lines:
        # Logs may hold anything, also what would move the cursor.
        line.plain = "".join(c if c.isprintable() else " " for c in line.plain)
        line.truncate(width, overflow="crop" if plain else "ellipsis")
    return lines[:-1]


def _head(one: RunStatus, width: int, now: float) -> Text:
    state: State = "gone" if one.word == "stopped" else one.word
    line = Text().append(f"{one.run.root.name}  ", "bold").append(one.word, STYLE[state])
    asked = ""
    if one.note:
        asked = "the scheduler does not answer"
    elif one.asked_at:
        asked = f"queue asked {clock(max(0, now - one.asked_at))} ago"
    if asked:
        line.append(" " * max(2, width - line.cell_len - len(asked))).append(asked, "dim")
    return line


def _stage(stage: StageStatus, figures: Figures, width: int, plain: bool) -> list[Text]:
    done, total = stage.counts.get("done", 0), stage.stage.array
    counts = Text(f"{done}/{total}")
    for state in PRESSING:
        if stage.counts.get(state) and total > 1:
            counts.append(f"  {stage.counts[state]} {state}", STYLE[state])
    room = width - NAME - 3
    each = -(-total // (GRID_LINES * room))
    if each > 1:
        counts.append(f"  (a cell is {each} tasks)", "dim")
    rows = _grid(stage.tasks, room, each, plain)
    small = len(rows) == 1 and rows[0].cell_len + counts.cell_len + NAME + 6 <= width
    lines = [Text(f"  {stage.stage.name[:NAME]:<{NAME}}").append_text(rows[0])]
    if small:
        lines[0].append("  ").append_text(counts)
    else:
        lines += [_below(row) for row in [*rows[1:], counts]]
    lines += [_below(line) for line in _more(stage, figures, room, plain)]
    return lines


def _below(text: Text) -> Text:
    return Text(" " * (NAME + 2)).append_text(text)


def _grid(tasks: Sequence[Task], width: int, each: int, plain: bool) -> list[Text]:
    """A cell for ``each`` tasks, in lines of ``width`` cells."""
    cells = [_cell(tasks[i : i + each], plain) for i in range(0, len(tasks), each)]
    rows = [cells[i : i + width] for i in range(0, len(cells), width)]
    return [Text.assemble(*row) for row in rows]


def _cell(tasks: Sequence[Task], plain: bool) -> tuple[str, str]:
    states = {task.state for task in tasks}
    state: State = next((s for s in PRESSING if s in states), "done")
    return GLYPHS[state][plain], STYLE[state]


def _more(stage: StageStatus, figures: Figures, width: int, plain: bool) -> list[Text]:
    lines = []
    if figures.total and (speed := _speed(figures)):
        lines.append(Text(speed))
    if figures.loss:
        now = f"loss {figures.loss[-1]:.4g}  "
        after = f"  checkpoint {figures.checkpoint}" if figures.checkpoint else ""
        bars = "" if plain else sparkline(figures.loss, width - len(now) - len(after))
        lines.append(Text(now).append(bars, "cyan").append(after))
    for state in SPEAKING:
        if why := stage.why(state):
            lines.append(Text(f"{state}: {why}", STYLE[state]))
    if figures.error:
        lines.append(Text(f"failed: {figures.error}", "red"))
    return lines


def _speed(figures: Figures) -> str:
    said = []
    if figures.unit != TASKS:  # those are counted beside the grid
        said.append(f"{figures.done:.0f} of {figures.total:.0f} {figures.unit}")
    if figures.rate:
        slow = figures.rate < 1
        speed = f"{figures.rate * (60 if slow else 1):.1f}"
        said.append(f"{speed} {figures.unit} a {'minute' if slow else 'second'}")
    if figures.seconds_left is not None:
        said.append(f"{clock(figures.seconds_left)} left")
    if figures.text and not figures.loss:
        said.append(figures.text)
    return ", ".join(said)


def sparkline(values: Sequence[float], width: int) -> str:
    """Means of up to ``width`` equal parts of ``values`` as bars from lowest to highest."""
    parts = min(width, len(values), MOST_BARS)
    if parts < 2:
        return ""
    edges = [round(i * len(values) / parts) for i in range(parts + 1)]
    pairs = itertools.pairwise(edges)
    means = [sum(values[a:b]) / (b - a) for a, b in pairs]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)
