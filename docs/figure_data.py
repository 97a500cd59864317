"""The figure of docs/data.md: rows of an episode, and which steps an epoch shows."""

from __future__ import annotations

from docs.figure import ACTION, STATE, arrow, document, text

WIDTH, HEIGHT = 1120, 640
CELL = 44
SEEN, NEVER, PADDED = "#cfe8d5", "#f8d3cd", "#e3e3e3"


def cells(x: float, y: float, labels: list[str], fill: str | list[str]) -> list[str]:
    """A row of boxes with a word in each."""
    fills = [fill] * len(labels) if isinstance(fill, str) else fill
    out = []
    for number, (label, colour) in enumerate(zip(labels, fills, strict=True)):
        left = x + CELL * number
        out.append(
            f'<rect x="{left}" y="{y}" width="{CELL - 3}" height="28" rx="4" fill="{colour}" '
            'stroke="#777"/>'
        )
        out.append(text(left + (CELL - 3) / 2, y + 19, label, 12, "middle"))
    return out


def names(letter: str, numbers: range) -> list[str]:
    """a0, a1, …"""
    return [f"{letter}{number}" for number in numbers]


def alignment() -> list[str]:
    """Upstream's files are one step late; what reading makes of it."""
    return [
        text(20, 62, "Row t is what is seen before action t", 15),
        text(20, 98, "upstream file: o(j) was recorded after a(j)", 13),
        *cells(400, 80, names("o", range(6)), STATE + "66"),
        *cells(400, 112, names("a", range(6)), ACTION + "66"),
        text(690, 98, "the simulator saw o0 only after a0:", 12),
        text(690, 116, "taken as they stand, every action is one step late", 12),
        arrow(531, 146, 531, 168),
        text(20, 192, "as read: rows moved by one, one step fewer", 13),
        *cells(400, 174, names("o", range(5)), STATE + "66"),
        *cells(400, 206, names("a", range(1, 6)), ACTION + "66"),
        text(690, 200, "regenerated files, RLDS and LeRobot have it so already;", 12),
        text(690, 218, "`rdtl data verify` measures which it is (RDTL-D027)", 12),
    ]


def chunks() -> list[str]:
    """A chunk near the end of an episode."""
    real, padding = names("a", range(6, 10)), ["a9"] * 4
    return [
        text(20, 276, "Every step is a sample, the last one too", 15),
        text(20, 312, "chunk of 8 from t = 6 in an episode of 10", 13),
        *cells(400, 294, [*real, *padding], [ACTION + "66"] * 4 + [PADDED] * 4),
        text(20, 346, "valid", 13),
        *cells(400, 328, ["1"] * 4 + ["0"] * 4, [SEEN] * 4 + [PADDED] * 4),
        text(770, 312, "behind the end the last action again,", 12),
        text(770, 330, "which the loss does not count", 12),
    ]


def bar(y: float, label: str, shown: list[tuple[float, str]], note: str) -> list[str]:
    """An episode's steps from left to right; ``shown``: shares of it and their colour."""
    out, left, width = [text(20, y + 18, label, 13)], 290.0, 560
    for share, colour in shown:
        out.append(
            f'<rect x="{left}" y="{y}" width="{width * share}" height="26" fill="{colour}" '
            'stroke="#777"/>'
        )
        left += width * share
    return [*out, text(870, y + 18, note, 12)]


def coverage() -> list[str]:
    """Which steps of an episode of 213 one epoch shows."""
    never = 64 / 213
    stripes = [(0.05, SEEN if number % 3 else NEVER) for number in range(20)]
    return [
        text(20, 404, "What an epoch shows (an episode of 213 steps, chunks of 64)", 15),
        *bar(424, "enumerate (default)", [(1, SEEN)], "every step exactly once"),
        *bar(460, "random: draws with replacement", stripes, "63 % of the steps once or more"),
        *bar(
            496,
            "tail-dropping loader of field notes",
            [(1 - never, SEEN), (never, NEVER)],
            "30 % never: release, success",
        ),
        text(290, 548, "first step", 12),
        text(850, 548, "last step", 12, "end"),
        *legend(),
    ]


def legend() -> list[str]:
    """Colours of the bars."""
    out = []
    for number, (colour, meaning) in enumerate(
        ((SEEN, "shown"), (NEVER, "not shown"), (PADDED, "padding"))
    ):
        x = 290 + 130 * number
        out.append(f'<rect x="{x}" y="572" width="14" height="14" fill="{colour}" stroke="#777"/>')
        out.append(text(x + 20, 584, meaning, 12))
    return out


def svg() -> str:
    """The whole figure."""
    parts = [
        text(20, 28, "From a file's rows to samples", 17),
        *alignment(),
        *chunks(),
        *coverage(),
    ]
    return document(WIDTH, HEIGHT, parts)
