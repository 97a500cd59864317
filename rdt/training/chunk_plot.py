"""A chunk of actions as it is and as the network samples it: one SVG that stands alone."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from rdt.spec.contract import Contract

COLUMNS, WIDTH, HEIGHT = 3, 250, 130
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 26, 18
HEAD = 48
STYLE = (
    "text{font:11px sans-serif;fill:#222}.title{font-size:14px}.true{stroke:#777;stroke-width:3}"
    ".sampled{stroke:#0b62c4;stroke-width:1.5}polyline{fill:none}.axis{stroke:#bbb}"
    "rect{fill:#fff}@media(prefers-color-scheme:dark){rect{fill:#16181c}text{fill:#ddd}"
    ".sampled{stroke:#6cb2ff}.axis{stroke:#555}}"
)


def chunk_plot(
    title: str, contract: Contract, true: NDArray[np.float32], sampled: NDArray[np.float32]
) -> str:
    """Lines of ``true`` and ``sampled`` (H, 128) over the steps, a panel for each action slot."""
    names = [
        (f"{part.name} {number} ({part.unit})" if part.size > 1 else f"{part.name}", slot)
        for part in contract.action
        for number, slot in enumerate(part.slots)
    ]
    rows = -(-len(names) // COLUMNS)
    width, height = COLUMNS * WIDTH, HEAD + rows * HEIGHT
    parts = [
        _text(LEFT, 20, title, "title"),
        '<line class="true" x1="40" y1="36" x2="60" y2="36"/>',
        _text(66, 40, "demonstrated"),
        '<line class="sampled" x1="170" y1="36" x2="190" y2="36"/>',
        _text(196, 40, "sampled"),
    ]
    for place, (name, slot) in enumerate(names):
        x, y = place % COLUMNS * WIDTH, HEAD + place // COLUMNS * HEIGHT
        parts += _panel(x, y, name, true[:, slot], sampled[:, slot])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}"><style>{STYLE}</style>'
        f'<rect width="{width}" height="{height}"/>{"".join(parts)}</svg>\n'
    )


def _panel(
    x: float, y: float, name: str, true: NDArray[np.float32], sampled: NDArray[np.float32]
) -> list[str]:
    finite = np.concatenate([true, sampled])
    finite = finite[np.isfinite(finite)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    if high - low < 1e-3:
        low, high = low - 0.5, high + 0.5
    bottom = y + HEIGHT - BOTTOM
    parts = [
        _text(x + LEFT, y + 16, name),
        f'<line class="axis" x1="{x + LEFT}" y1="{bottom}" x2="{x + WIDTH - RIGHT}" '
        f'y2="{bottom}"/>',
        _text(x + 2, y + TOP + 8, f"{high:.2g}"),
        _text(x + 2, bottom, f"{low:.2g}"),
    ]
    for values, kind in ((true, "true"), (sampled, "sampled")):
        xs = np.linspace(x + LEFT, x + WIDTH - RIGHT, len(values))
        ys = bottom - (values - low) / (high - low) * (bottom - y - TOP)
        pairs = [(a, b) for a, b in zip(xs.tolist(), ys.tolist(), strict=True) if np.isfinite(b)]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in pairs)
        parts.append(f'<polyline class="{kind}" points="{points}"/>')
    return parts


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(words)}</text>'
