"""The charts of the evaluation page: success rates and the training loss."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from launcher.html import svg
from launcher.report import evidence
from launcher.report.aggregate import Row
from launcher.report.intervals import Interval


def bars(rows: Sequence[Row], main: str, names: Sequence[str] = ()) -> str:
    """Success rate per row with its 95 % interval as a whisker; policy ``main`` stands out.

    ``names`` are the labels; without them the policies.
    """
    above = bool(names)  # names of runs are too long to stand beside the bar on a phone
    left, right, top, pitch = 24 if above else 84, 650, 8, 62 if above else 42
    names = names or [row.policy for row in rows]
    bottom = top + pitch * len(rows)
    parts = [
        svg.line(x := svg.scale(tick, 0, 100, left, right), top, x, bottom, "grid")
        + svg.text(x, bottom + 18, f"{tick} %" if tick == 100 else str(tick), "tick middle")
        for tick in (0, 25, 50, 75, 100)
    ]
    for number, (name, row) in enumerate(zip(names, rows, strict=True)):
        y = top + pitch * number + (45 if above else pitch / 2)
        if above:
            parts.append(svg.text(left, y - 18, name, "label"))
        else:
            parts.append(svg.text(left - 10, y + 5, name, "label end"))
        parts.append(svg.text(right + 14, y + 5, f"{row.successes}/{row.episodes}", "label"))
        parts.append(_bar(row, y, left, right, "bar main" if row.policy == main else "bar"))
    about = "; ".join(
        f"{name} {evidence.percent(row.rate)} %, interval {evidence.interval_text(row)} %"
        for name, row in zip(names, rows, strict=True)
    )
    return svg.svg(bottom + 28, f"Success rate: {about}", parts)


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


def differences(pairs: Sequence[tuple[str, float, Interval]]) -> str:
    """Each named difference of rates, in [-1, 1], with its interval around a line at zero."""
    left, right, top, pitch = 24, 650, 8, 62
    bottom = top + pitch * len(pairs)
    widest = max(abs(bound) for _, _, interval in pairs for bound in interval)
    reach = next(r for r in (0.1, 0.2, 0.4, 0.6, 0.8, 1.0) if r >= widest)
    parts = []
    for tick in (-1, -0.5, 0, 0.5, 1):
        x = svg.scale(tick, -1, 1, left, right)
        parts.append(svg.line(x, top, x, bottom, "axis" if tick == 0 else "grid"))
        parts.append(svg.text(x, bottom + 18, _points(reach * tick), "tick middle"))
    for number, (name, value, interval) in enumerate(pairs):
        y = top + pitch * number + 42
        at, low, high = (svg.scale(v, -reach, reach, left, right) for v in (value, *interval))
        parts.append(svg.text(left, y - 18, name, "label"))
        parts.append(svg.line(low, y, high, y, "whisker"))
        parts.append(f'<circle class="bar main" cx="{at:.1f}" cy="{y:g}" r="6"/>')
        parts.append(svg.text(right + 14, y + 5, _points(value), "label"))
    about = "; ".join(f"{name} {_points(value)} points" for name, value, _ in pairs)
    return svg.svg(bottom + 28, f"Difference of success rates: {about}", parts)


def _points(difference: float) -> str:
    return f"{100 * difference:+.0f}".replace("-", "−") if round(100 * difference) else "0"


def lengths(steps: Sequence[int], limit: int) -> str:
    """How many episodes succeeded after so many control steps; 20 bins up to ``limit``."""
    left, right, top, bottom, bins = 64, 740, 22, 160, 20
    counts = [0] * bins
    for value in steps:
        counts[min(bins - 1, value * bins // limit)] += 1
    width, highest = (right - left) / bins, max(counts)
    parts = [svg.line(left, bottom, right, bottom, "axis")]
    for number, count in enumerate(counts):
        x, height = left + number * width, count / highest * (bottom - top)
        if count:
            parts.append(svg.rect(x + 1, bottom - height, width - 2, height, "bar main"))
            parts.append(svg.text(x + width / 2, bottom - height - 5, str(count), "tick middle"))
    for tick in range(5):
        x = svg.scale(tick, 0, 4, left, right)
        parts.append(svg.text(x, bottom + 20, f"{limit * tick // 4}", "tick middle"))
    parts.append(svg.text((left + right) / 2, bottom + 42, "control steps", "tick middle"))
    return svg.svg(bottom + 52, f"Lengths of {len(steps)} successful episodes", parts)


def phases(rows: Sequence[Row]) -> str:
    """Mean seconds of an episode per policy: in the policy, and in simulator and rendering."""
    timed = [r for r in rows if r.mean_wall_s is not None and r.mean_policy_s is not None]
    longest = max((r.mean_wall_s or 0 for r in timed), default=0) or 1
    left, right, top, pitch = 84, 530, 8, 34
    parts = []
    for number, row in enumerate(timed):
        wall, thought = row.mean_wall_s or 0.0, row.mean_policy_s or 0.0
        y = top + pitch * number
        middle, end = (svg.scale(v, 0, longest, left, right) for v in (thought, wall))
        parts.append(svg.text(left - 10, y + 18, row.policy, "label end"))
        parts.append(svg.rect(left, y + 3, middle - left, 20, "bar main"))
        parts.append(svg.rect(middle, y + 3, end - middle, 20, "bar"))
        parts.append(svg.text(end + 10, y + 18, f"{thought:.2f} + {wall - thought:.2f} s", "label"))
    about = "; ".join(f"{r.policy} {r.mean_policy_s:.2f} of {r.mean_wall_s:.2f} s" for r in timed)
    return svg.svg(top + pitch * len(timed) + 4, f"Seconds in the policy: {about}", parts)


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
