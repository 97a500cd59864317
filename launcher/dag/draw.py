"""A running recipe in a terminal: the tree with states and durations, and what is beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.text import Text

from launcher.core.dag import Graph
from launcher.dag import schedule, tree, words
from launcher.dag.schedule import Schedule
from launcher.dag.view import State, StepView, View, progress

STYLE: dict[State, str] = {
    "waiting": "dim",
    "running": "cyan",
    "done": "green",
    "skipped": "green",
    "failed": "bold red",
    "blocked": "yellow",
    "stopped": "yellow",
}


def frame(
    graph: Graph, view: View, beside: Sequence[str], now: float, width: int, plain: bool = False
) -> list[Text]:
    """Lines of at most ``width`` columns; ``now`` is the machine's clock."""
    times = schedule.plan(graph, expected(graph, view, now))
    labels = _labels(view, times, now)
    styles = {name: STYLE[step.state] for name, step in view.steps.items()}
    lines = [Text(_head(graph, view, times, now), "bold")]
    lines += [Text(row, styles[name]) for name, row in tree.lines(graph, times, labels, plain)]
    lines += [Text(text) for text in beside]
    for line in lines:
        line.plain = "".join(c if c.isprintable() else " " for c in line.plain)
        line.truncate(width, overflow="crop" if plain else "ellipsis")
    return lines


def expected(graph: Graph, view: View, now: float) -> dict[str, float]:
    """Seconds of each step as known now; one that runs takes at least what it took so far."""
    found = {}
    for name, step in view.steps.items():
        if step.state == "running" and step.began:
            found[name] = max(graph.step(name).expected_s, now - step.began)
        elif step.seconds is not None:
            found[name] = step.seconds
        elif step.state == "skipped":
            found[name] = 0.0
    return found


def _head(graph: Graph, view: View, times: Schedule, now: float) -> str:
    passed = max(0.0, now - view.began) if view.began else 0.0
    good = sum(step.state in ("done", "skipped") for step in view.steps.values())
    word = {"": "runs", "gone": "the runner is gone", "end": "ended"}[view.ended]
    if view.ended == "end":
        word = {0: "done", 143: "stopped"}.get(view.rc or 0, "failed")
    return f"{graph.name}: {word}, {good} of {len(view.steps)} steps, {words.length(passed)}"


def _labels(view: View, times: Schedule, now: float) -> Callable[[str], str]:
    def label(name: str) -> str:
        step = view.steps[name]
        mark = "*" if name in times.critical else " "
        return f"{mark} {step.state:<8} {_time(step, now):>8} {_words(step)}".rstrip()

    return label


def _time(step: StepView, now: float) -> str:
    if step.state == "running" and step.began:
        return words.length(max(0.0, now - step.began))
    return "" if step.seconds is None else words.length(step.seconds)


def _words(step: StepView) -> str:
    again = [f"try {step.attempt}"] if step.attempt > 1 else []
    return ", ".join([*again, *filter(None, [progress(step.values), step.told])])
