"""The charts of a data set's page: actions, episode lengths, coverage."""

from __future__ import annotations

from typing import Any

from launcher.html import svg
from launcher.inspection import words
from launcher.inspection.words import Inspection

PANEL = 380
APART = 40
"""Units of the drawing, at least, between the middles of two numbers below an axis."""
MARKS = {"enumerate": "bar main", "random": "bar", "tail-dropping": "bar lost"}


def action(number: dict[str, Any]) -> str:
    """One number of the actions: share of the steps over its value, 1 % to 99 % marked below."""
    left, right, top, bottom = 52, PANEL - 10, 34, 130
    edge, steps = number["edge"], sum(number["counts"]) or 1
    shares = [count / steps for count in number["counts"]]
    highest = max(shares) or 1.0

    def at(value: float) -> float:
        return svg.scale(value, -edge, edge, left, right)

    parts = [svg.text(left, 16, number["name"], "label")]
    parts.append(svg.text(right, 16, _meaning(number), "tick end"))
    for share in (highest, highest / 2):
        y = svg.scale(share, 0, highest, bottom, top)
        parts.append(svg.line(left, y, right, y, "grid"))
        parts.append(svg.text(left - 6, y + 4, f"{100 * share:.0f} %", "tick end"))
    width = (right - left) / len(shares)
    for place, share in enumerate(shares):
        high = max(svg.scale(share, 0, highest, 0, bottom - top), 1)
        if share:
            parts.append(svg.rect(left + place * width, bottom - high, width - 1, high, "bar main"))
    parts.append(svg.line(left, bottom, right, bottom, "axis"))
    for tick in (-edge, 0, edge):
        below = f"{tick:.3g}".replace("-", "−")
        parts.append(svg.text(at(tick), bottom + 17, below, "tick middle"))
    if number["quantiles"]:
        low, high = at(number["quantiles"][1]), at(number["quantiles"][3])
        parts.append(svg.line(low, bottom + 25, high, bottom + 25, "whisker"))
        parts += [svg.line(x, bottom + 21, x, bottom + 29, "whisker") for x in (low, high)]
    return svg.svg(bottom + 34, _about(number), parts, PANEL)


def _meaning(number: dict[str, Any]) -> str:
    if number["name"] == "gripper":
        return "−1 opens, 1 closes"
    verb = "turned" if number["unit"].endswith("rad") else "moved"
    return f"1 = goal {verb} by {number['unit']}"


def _about(number: dict[str, Any]) -> str:
    if not number["quantiles"]:
        return f"{number['name']}: no finite value"
    _, low, middle, high, _ = number["quantiles"]
    return f"{number['name']}: 1 % to 99 % from {low:.3g} to {high:.3g}, median {middle:.3g}"


def lengths(found: Inspection) -> str:
    """Episodes over their length, beside the length of a chunk."""
    left, right, top, bottom = 44, 740, 24, 150
    histogram, horizon = found["lengths"]["histogram"], found["coverage"]["horizon"]
    counts, width = histogram["counts"], histogram["width"]
    low, end = histogram["low"], histogram["low"] + width * len(counts)
    start = min(low, max(horizon - 4, 0))
    end = max(end, horizon + 4)

    def at(steps: float) -> float:
        return svg.scale(steps, start, end, left, right)

    parts = [
        svg.line(left, y := svg.scale(tick, 0, max(counts), bottom, top), right, y, "grid")
        + svg.text(left - 6, y + 5, f"{tick:g}", "tick end")
        for tick in {max(counts), max(counts) // 2} - {0}
    ]
    for place, count in enumerate(counts):
        high = svg.scale(count, 0, max(counts), 0, bottom - top)
        wide = max(at(width) - at(0) - 1, 1)
        parts.append(svg.rect(at(low + place * width), bottom - high, wide, high, "bar main"))
    parts.append(svg.line(at(horizon), top - 14, at(horizon), bottom, "whisker"))
    parts.append(svg.text(at(horizon) + 6, top - 6, f"a chunk: {horizon}", "tick"))
    parts.append(svg.line(left, bottom, right, bottom, "axis"))
    facts, ticks = found["lengths"], list[int]()
    for tick in (horizon, facts["max"], facts["min"]):
        if all(abs(at(tick) - at(other)) >= APART for other in ticks):
            ticks.append(tick)
    parts += [svg.text(at(t), bottom + 18, f"{t}", "tick middle") for t in ticks]
    parts.append(svg.text((left + right) / 2, bottom + 38, "control steps", "tick middle"))
    about = f"Episode lengths from {facts['min']} to {facts['max']}, median {facts['median']:g}"
    return svg.svg(bottom + 44, about, parts)


def coverage(found: Inspection) -> str:
    """Share of each key window that one epoch shows, by order; what is never shown is hollow."""
    left, right, top, pitch, gap = 250, 580, 6, 22, 16
    y, parts, said = float(top), [], []
    for window, meaning in words.windows(found).items():
        steps = found["coverage"]["windows"][window]
        parts.append(svg.text(0, y + 15, meaning, "label"))
        parts.append(svg.text(0, y + 33, words.counted(steps, "step"), "tick"))
        for order, _, own in words.orders(found):
            parts += _coverage_bar(order, own[window], y, left, right)
            said.append(f"{meaning}, {order} {words.percent(own[window]['seen'])}")
            y += pitch
        y += gap
    bottom = y - gap + 4
    grid = [
        svg.line(x := svg.scale(tick, 0, 1, left, right), top, x, bottom, "grid")
        + svg.text(x, bottom + 18, f"{100 * tick:.0f} %", "tick middle")
        for tick in (0, 0.5, 1)
    ]
    return svg.svg(bottom + 26, "Coverage of one epoch: " + "; ".join(said), grid + parts)


def _coverage_bar(
    order: str, row: dict[str, Any], y: float, left: float, right: float
) -> list[str]:
    seen, never = row["seen"], row["never"]
    end = svg.scale(seen, 0, 1, left, right)
    parts = [
        svg.text(left - 8, y + 15, order, "tick end"),
        svg.rect(left, y + 2, end - left, 17, MARKS[order]),
    ]
    beside = words.percent(seen)
    if never:
        start = svg.scale(1 - never, 0, 1, left, right)
        parts.append(svg.rect(start, y + 2.5, right - start, 16, "never"))
        beside += f", never {words.percent(never)}"
    parts.append(svg.text(right + 8, y + 15, beside, "tick"))
    return parts
