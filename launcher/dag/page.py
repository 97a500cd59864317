"""A recipe's graph as one page that stands alone: the schedule as bars, the steps in words."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from launcher import html
from launcher.core.dag import Graph
from launcher.dag import words
from launcher.dag.schedule import Schedule
from launcher.html import svg

TEMPLATE = "graph.html.j2"
ROW, TOP, LEFT, RIGHT, SQUEEZED = 26, 34, 150, 700, 70


def render(graph: Graph, about: str, times: Schedule, again: str) -> str:
    """The page as HTML text. UsageError RDTL-U015 when jinja2 is not installed."""
    environment = html.environment(
        Path(__file__).parent, why="the tree needs no template engine, the page does", again=again
    )
    from markupsafe import Markup

    ordered = sorted(graph.steps, key=lambda s: (times.begins[s.name], times.ends[s.name]))
    serial = sum(times.ends[s.name] - times.begins[s.name] for s in ordered)
    return environment.get_template(TEMPLATE).render(
        graph=graph,
        about=about,
        steps=ordered,
        times=times,
        length=words.length,
        serial=serial,
        chart=Markup(bars(graph, times)),
        cut=axis(times).cut is not None,
    )


@dataclass(frozen=True)
class Axis:
    """From seconds to the chart; what follows ``cut`` is squeezed where one step lasts long."""

    end: float
    cut: float | None

    def x(self, at: float) -> float:
        """Where a time lies."""
        if self.cut is None:
            return svg.scale(at, 0, self.end, LEFT, RIGHT)
        edge = RIGHT - SQUEEZED
        if at <= self.cut:
            return svg.scale(at, 0, self.cut, LEFT, edge)
        return svg.scale(at, self.cut, self.end, edge, RIGHT)


def axis(times: Schedule) -> Axis:
    """The axis of a schedule, cut where nothing begins or ends for more than half of it."""
    end = times.length or 1.0
    moments = sorted({0.0, *times.begins.values(), *times.ends.values()})
    quiet = [b for a, b in itertools.pairwise(moments) if b - a > end / 2]
    before = [moment for moment in moments if quiet and moment < quiet[0]]
    if not before or not before[-1]:
        return Axis(end, None)
    return Axis(end, before[-1] * 1.1)


def bars(graph: Graph, times: Schedule) -> str:
    """Each step as a bar over time, critical ones marked, with a line from each need."""
    ordered = sorted(graph.steps, key=lambda s: (times.begins[s.name], times.ends[s.name]))
    row = {step.name: TOP + ROW * number for number, step in enumerate(ordered)}
    line, bottom = axis(times), TOP + ROW * len(ordered)
    parts = [
        svg.line(line.x(at), TOP - 8, line.x(at), bottom, "grid")
        + svg.text(line.x(at), TOP - 14, words.length(at), "tick middle")
        for at in _ticks(line.cut or line.end)
    ]
    for step in ordered:
        x = line.x(times.begins[step.name])
        parts += [
            _arrow(line.x(times.ends[need]), row[need] + 9, x, row[step.name] + 9)
            for need in step.needs
        ]
    for step in ordered:
        parts += _bar(step.name, times, line, row[step.name])
    if line.cut is not None:
        x = line.x(line.cut)
        parts.append(svg.line(x, TOP - 8, x, bottom, "cut"))
        parts.append(svg.text(x + 5, TOP - 14, f"… {words.length(line.end)}", "tick"))
    told = f"{len(ordered)} steps in {words.length(line.end)}; "
    return svg.svg(bottom + 10, told + f"critical: {', '.join(times.critical)}", parts)


def _bar(name: str, times: Schedule, line: Axis, y: float) -> list[str]:
    """A step's name, bar and duration: behind the bar, or in or before it where no room is."""
    begin, stop = line.x(times.begins[name]), line.x(times.ends[name])
    length = words.length(times.ends[name] - times.begins[name])
    if stop + 75 < svg.WIDTH:
        told = svg.text(stop + 6, y + 14, length, "tick")
    elif stop - begin > 75:
        told = svg.text(stop - 6, y + 14, length, "inside end")
    else:
        told = svg.text(begin - 6, y + 14, length, "tick end")
    kind = "bar main" if name in times.critical else "bar"
    bar = svg.rect(begin, y, max(2.0, stop - begin), 18, kind)
    return [svg.text(LEFT - 10, y + 14, name, "label end"), bar, told]


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return svg.line(x1, y1, x1, y2, "need") + svg.line(x1, y2, x2, y2, "need")


def _ticks(end: float) -> list[float]:
    pitches = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400, 604800)
    pitch = next((p for p in pitches if end / p <= 6), end)
    return [pitch * number for number in range(int(end // pitch) + 1)]
