"""The charts of the evaluation page: success rates and the training loss."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from launcher.html import svg
from launcher.report import evidence
from launcher.report.aggregate import Row


def bars(rows: Sequence[Row], main: str) -> str:
    """Success rate per policy with its 95 % interval as a whisker; ``main`` stands out."""
    left, right, top, pitch = 84, 650, 8, 42
    bottom = top + pitch * len(rows)
    parts = [
        svg.line(x := svg.scale(tick, 0, 100, left, right), top, x, bottom, "grid")
        + svg.text(x, bottom + 18, f"{tick} %" if tick == 100 else str(tick), "tick middle")
        for tick in (0, 25, 50, 75, 100)
    ]
    for number, row in enumerate(rows):
        y = top + pitch * number + pitch / 2
        parts.append(svg.text(left - 10, y + 5, row.policy, "label end"))
        parts.append(svg.text(right + 14, y + 5, f"{row.successes}/{row.episodes}", "label"))
        parts.append(_bar(row, y, left, right, "bar main" if row.policy == main else "bar"))
    about = "; ".join(
        f"{row.policy} {evidence.percent(row.rate)} %, interval {evidence.interval_text(row)} %"
        for row in rows
    )
    return svg.svg(bottom + 28, f"Success rate per policy: {about}", parts)


def _bar(row: Row, y: float, left: float, right: float, kind: str) -> str:
    if row.rate is None or row.interval is None:
        return svg.text(left + 8, y + 5, "no finished episode", "tick")
    end = svg.scale(row.rate, 0, 1, left, right)
    low, high = (svg.scale(bound, 0, 1, left, right) for bound in row.interval)
    return (
        svg.rect(left, y - 11, end - left, 22, kind)
        + svg.line(low, y, high, y, "halo")
        + svg.line(low, y, high, y, "whisker")
        + svg.line(low, y - 6, low, y + 6, "whisker")
        + svg.line(high, y - 6, high, y + 6, "whisker")
    )


def loss_curve(points: Sequence[tuple[int, float]]) -> str:
    """Loss over optimizer steps, logarithmic; single readings thin, their running median bold.

    ``points`` are at least two (step, loss > 0) by rising step.
    """
    left, right, top, bottom = 64, 740, 10, 250
    steps, losses = [p[0] for p in points], [p[1] for p in points]
    low, high = min(losses) * 0.9, max(losses) * 1.1
    x = [svg.scale(step, 0, steps[-1], left, right) for step in steps]

    def height(value: float) -> float:
        return svg.scale(math.log(value), math.log(low), math.log(high), bottom, top)

    parts = [
        svg.line(left, height(tick), right, height(tick), "grid")
        + svg.text(left - 8, height(tick) + 5, f"{tick:.4g}", "tick end")
        for tick in log_ticks(low, high)
    ]
    for tick in linear_ticks(steps[-1]):
        at = svg.scale(tick, 0, steps[-1], left, right)
        parts.append(svg.line(at, bottom, at, bottom + 5, "axis"))
        parts.append(svg.text(at, bottom + 20, f"{tick:,}", "tick middle"))
    smooth = running_median(losses, max(3, len(losses) // 10))
    parts.append(svg.line(left, bottom, right, bottom, "axis"))
    parts.append(svg.path(x, map(height, losses), "raw"))
    parts.append(svg.path(x, map(height, smooth), "curve"))
    parts.append(svg.text((left + right) / 2, bottom + 40, "optimizer step", "tick middle"))
    parts.append(svg.text(left + 8, top + 10, "loss", "tick"))
    about = f"Training loss from {smooth[0]:.3g} to {smooth[-1]:.3g} over {steps[-1]} steps"
    return svg.svg(bottom + 48, about, parts)


def running_median(values: Sequence[float], window: int) -> list[float]:
    """Median of the ``window`` readings around each, fewer at both ends."""
    half = window // 2
    return [statistics.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def log_ticks(low: float, high: float) -> list[float]:
    """Round values inside [low, high]: 1, 2, 5 times powers of ten, over many decades the powers
    alone; both ends when fewer than two round values lie inside."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if last - first > 4 else (1, 2, 5)
    ticks = [float(f"{factor}e{power}") for power in range(first, last + 1) for factor in factors]
    inside = [tick for tick in ticks if low <= tick <= high]
    return inside if len(inside) > 1 else [low, high]


def linear_ticks(end: int) -> list[int]:
    """Whole multiples of 1, 2 or 5 times a power of ten from 0 to ``end``, four to nine of them."""
    raw = max(1.0, end / 8)
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return list(range(0, end + 1, step))
