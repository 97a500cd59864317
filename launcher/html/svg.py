"""Strokes of SVG charts that take their colours from the page, so that dark mode and print follow.

Coordinates are SVG units; the page scales a chart to its column. Text is escaped here.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

WIDTH = 760


def scale(value: float, low: float, high: float, start: float, end: float) -> float:
    """Where ``value`` of low … high lies between ``start`` and ``end``."""
    return start + (value - low) / (high - low) * (end - start)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line of the class ``kind``."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    """A filled rectangle of the class ``kind``."""
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" '
        f'width="{max(0.0, width):.1f}" height="{height:.1f}"/>'
    )


def text(x: float, y: float, words: str, kind: str) -> str:
    """One line of text of the class ``kind``."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def path(xs: Iterable[float], ys: Iterable[float], kind: str) -> str:
    """A line through points of the class ``kind``."""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    return f'<polyline class="{kind}" points="{points}"/>'


def svg(height: float, about: str, parts: Iterable[str], width: float = WIDTH) -> str:
    """A chart; ``about`` is what it says to someone who does not see it."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(about)}">'
        + "".join(parts)
        + "</svg>"
    )
