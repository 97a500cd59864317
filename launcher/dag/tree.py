"""The graph as a tree in a terminal: every step stands below the step that it waits for longest."""

from __future__ import annotations

from collections.abc import Callable

from launcher.core.dag import Graph
from launcher.dag.schedule import Schedule

Label = Callable[[str], str]


def parents(graph: Graph, times: Schedule) -> dict[str, str | None]:
    """The need of each step that ends last, or None for a step that needs nothing."""
    return {
        step.name: max(step.needs, key=lambda need: (times.ends[need], need), default=None)
        for step in graph.steps
    }


def lines(
    graph: Graph, times: Schedule, label: Label, plain: bool = False
) -> list[tuple[str, str]]:
    """Name and line of each step: branches, the name padded to a column, then ``label`` of it.

    ``plain``: ASCII only.
    """
    above = parents(graph, times)
    below: dict[str | None, list[str]] = {}
    for step in sorted(graph.steps, key=lambda s: (times.begins[s.name], times.ends[s.name])):
        below.setdefault(above[step.name], []).append(step.name)
    rows = list(_rows(below, None, "", plain))
    width = max((len(prefix) + len(name) for prefix, name in rows), default=0)
    return [
        (name, f"{prefix}{name.ljust(width - len(prefix))}  {label(name)}") for prefix, name in rows
    ]


def others(graph: Graph, times: Schedule, name: str) -> str:
    """What a step needs beside the step that it stands below."""
    above = parents(graph, times)[name]
    needs = [need for need in graph.step(name).needs if need != above]
    return f"  (and after {', '.join(needs)})" if needs else ""


def _rows(
    below: dict[str | None, list[str]], name: str | None, prefix: str, plain: bool
) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    children = below.get(name, [])
    for child in children:
        last = child == children[-1]
        tee, gap = (("`- ", "   ") if plain else ("└─ ", "   ")) if last else (
            ("|- ", "|  ") if plain else ("├─ ", "│  ")
        )  # fmt: skip
        branch = "" if name is None else tee
        rows.append((prefix + branch, child))
        rows += _rows(below, child, prefix + ("" if name is None else gap), plain)
    return rows
