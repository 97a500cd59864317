"""The figure of docs/rdt.md: model, caching and slots. The slots are drawn from the contracts."""

from __future__ import annotations

from html import escape

from rdt.spec.contract import CONTRACTS, UNIFIED_SIZE, Contract

WIDTH, HEIGHT = 1120, 800
COLOURS = {
    "process": "#cfe8d5",
    "episode": "#d9e6f7",
    "chunk": "#fdebc8",
    "step": "#f8d3cd",
    "grey": "#e3e3e3",
}
WHEN = {
    "process": "once per process",
    "episode": "once per instruction",
    "chunk": "once per chunk",
    "step": "at each of the 5 diffusion steps",
}
STATE, ACTION, BOTH = "#4f83c2", "#d9822b", "#7a4fa3"
CAMERAS = ("external", "right wrist", "left wrist")


def text(x: float, y: float, words: str, size: int = 13, anchor: str = "start") -> str:
    """One line of text."""
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}">{escape(words)}</text>'


def document(width: int, height: int, parts: list[str]) -> str:
    """A whole picture on white."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="DejaVu Sans, Helvetica, sans-serif">\n'
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#555"/></marker></defs>\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n'
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def box(x: float, y: float, w: float, h: float, when: str, *lines: str) -> str:
    """A rounded box with centred lines; the first is larger."""
    drawn = [
        f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6" fill="{COLOURS[when]}" '
        'stroke="#555"/>'
    ]
    top = y + h / 2 - 8 * (len(lines) - 1) + 4
    for number, line in enumerate(lines):
        drawn.append(text(x + w / 2, top + 16 * number, line, 12 if number else 13, "middle"))
    return "\n".join(drawn)


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """A line with a head at its end."""
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#555" stroke-width="1.5" '
        'marker-end="url(#head)"/>'
    )


def pictures() -> list[str]:
    """Six picture slots, the vision encoder and the keys of the odd blocks."""
    out = [text(20, 62, "Pictures (729 tokens each)", 14)]
    for moment, name in enumerate(("t − 1", "t")):
        out.append(text(20, 98 + 62 * moment, name))
        for camera, label in enumerate(CAMERAS):
            absent = label == "left wrist"
            x, y = 56 + 106 * camera, 72 + 62 * moment
            words = (label, "absent: grey") if absent else (label, "seen")
            out.append(box(x, y, 98, 46, "process" if absent else "chunk", *words))
    out += [
        arrow(376, 128, 406, 128),
        box(406, 92, 150, 72, "chunk", "SigLIP", "4 passes a query,", "2 if every step is one"),
        arrow(556, 128, 586, 128),
        box(586, 92, 150, 72, "chunk", "picture adaptor", "remembered by the", "picture's content"),
        arrow(736, 128, 766, 128),
        box(766, 72, 334, 50, "chunk", "keys and values of the 4 seen slots", "odd blocks"),
        box(766, 134, 334, 50, "process", "keys and values of the grey slots", "odd blocks"),
    ]
    return out


def words_and_state() -> list[str]:
    """Language and state."""
    return [
        text(20, 226, "Instruction", 14),
        box(56, 236, 204, 46, "episode", "T5 embedding, L ≤ 1024", "made beforehand"),
        arrow(260, 259, 586, 259),
        box(586, 236, 150, 46, "chunk", "language adaptor"),
        arrow(736, 259, 766, 259),
        box(766, 236, 334, 46, "chunk", "keys and values of the words", "even blocks"),
        text(20, 316, "Robot state", 14),
        box(56, 326, 204, 46, "chunk", "contract → 128 slots", "beside the mask of used slots"),
        arrow(232, 372, 236, 420),
    ]


def denoising() -> list[str]:
    """The loop of five steps."""
    tokens = ["t", "rate", "state", "a0", "a1", "…", "a63"]
    out = [text(20, 410, "Noise", 14)]
    for number, token in enumerate(tokens):
        out.append(box(56 + 74 * number, 422, 70, 40, "step", token))
    blocks = "28 blocks: self-attention, cross-attention"
    out += [
        arrow(574, 442, 606, 442),
        box(606, 414, 330, 56, "step", blocks, "to words (even) or pictures (odd), feed-forward"),
        arrow(936, 442, 966, 442),
        box(966, 414, 134, 56, "step", "estimate of the", "clean chunk"),
        arrow(771, 284, 771, 412),
        '<path d="M1033 470 V500 H310 V464" fill="none" stroke="#555" stroke-width="1.5" '
        'marker-end="url(#head)"/>',
        text(670, 518, "DPM-Solver++, 5 times; then × mask → contract → actions", 13, "middle"),
    ]
    return out


def strip(y: float, contract: Contract) -> list[str]:
    """The 128 slots of a contract; what the mask leaves out is only outlined."""
    out = [text(20, y + 15, contract.name)]
    for slot in range(UNIFIED_SIZE):
        state, action = slot in contract.state_slots, slot in contract.action_slots
        fill = BOTH if state and action else STATE if state else ACTION if action else "#f4f4f4"
        told = 1.0 if slot in contract.mask_slots or not state else 0.35
        out.append(
            f'<rect x="{190 + 7 * slot}" y="{y}" width="7" height="20" fill="{fill}" '
            f'fill-opacity="{told}" stroke="#fff" stroke-width="0.6"/>'
        )
    return out


def slots() -> list[str]:
    """One strip per contract, with the slot numbers."""
    out = [text(20, 566, "The 128 slots, by contract", 14)]
    for number, contract in enumerate(CONTRACTS.values()):
        out += strip(600 + 30 * number, contract)
    for slot in (0, 10, 30, 39, 50, 80, 100, 127):
        out.append(text(193 + 7 * slot, 592, str(slot), 11, "middle"))
    bottom = 600 + 30 * len(CONTRACTS) + 22
    legend = ((STATE, "state"), (ACTION, "action"), (BOTH, "state and action"))
    for number, (colour, meaning) in enumerate(legend):
        x = 190 + 130 * number
        out.append(f'<rect x="{x}" y="{bottom - 11}" width="14" height="14" fill="{colour}"/>')
        out.append(text(x + 20, bottom + 1, meaning, 12))
    out.append(text(620, bottom + 1, "pale: outside the mask that the network is given", 12))
    return out


def svg() -> str:
    """The whole figure."""
    legend = []
    for number, (when, meaning) in enumerate(WHEN.items()):
        x = 330 + 190 * number
        legend.append(
            f'<rect x="{x}" y="14" width="16" height="16" fill="{COLOURS[when]}" stroke="#555"/>'
        )
        legend.append(text(x + 22, 27, meaning, 12))
    parts = [
        text(20, 28, "What a query computes, and when", 17),
        *legend,
        *pictures(),
        *words_and_state(),
        *denoising(),
        *slots(),
    ]
    return document(WIDTH, HEIGHT, parts)
