"""The figure of docs/architecture.md: one road, where its parts run, and who may know whom."""

from __future__ import annotations

from docs.figure import arrow, document, text

WIDTH, HEIGHT = 1120, 590
YOURS, LOGIN, NODE, RUN = "#e3e3e3", "#d9e6f7", "#fdebc8", "#cfe8d5"
STATIONS = (
    ("configuration", YOURS, "YAML and --set", "what you write"),
    ("plan", LOGIN, "pure data", "plan.json"),
    ("image, assets", LOGIN, "built once, proven", "by digest"),
    ("submission", LOGIN, "claimed, then sent", "sbatch, ssh, here"),
    ("node task", NODE, "signals, ranks", "jobs.node"),
    ("job", NODE, "in its container", "jobs.*, rdt.*"),
    ("report", LOGIN, "rates, intervals", "index.html"),
)
LAYERS = (
    ("launcher/cli", LOGIN, "one module for each command group: parses, calls, prints"),
    (
        "launcher",
        LOGIN,
        "configuration, plans, sites, snapshot, images, staging, submission, report",
    ),
    ("jobs", NODE, "programs on the node: collect, dataset, train, evaluate, videos, serve"),
    ("rdt", NODE, "the science: model, diffusion, data, training, policy, simulator"),
    ("launcher/core, rdt/spec", RUN, "errors, files, ledger, runtimes; contract, protocol, record"),
)


def card(x: float, y: float, w: float, h: float, fill: str, *lines: str) -> list[str]:
    """A box whose first line is its name."""
    out = [
        f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6" fill="{fill}" stroke="#555"/>',
        text(x + w / 2, y + 24, lines[0], 15, "middle"),
    ]
    for number, line in enumerate(lines[1:]):
        out.append(text(x + w / 2, y + 44 + 16 * number, line, 12, "middle"))
    return out


def road() -> list[str]:
    """Stations from left to right, and the run directory that all of them write into."""
    out = [text(20, 62, "One road; what is on it never turns back", 15)]
    for number, (name, fill, *rest) in enumerate(STATIONS):
        x = 20 + 156 * number
        out += card(x, 78, 140, 72, fill, name, *rest)
        if number:
            out.append(arrow(x - 16, 114, x - 2, 114))
        if number:
            out.append(arrow(x + 70, 150, x + 70, 186))
    return [
        *out,
        *card(
            176,
            190,
            920,
            58,
            RUN,
            "the run directory",
            "events (one small file each, written once), code, logs, checkpoints, records, report: "
            "whoever has it can finish the run",
        ),
    ]


def legend() -> list[str]:
    """Where a colour runs."""
    out = []
    words = ((YOURS, "yours"), (LOGIN, "login node or laptop"), (NODE, "compute node"))
    for number, (fill, meaning) in enumerate((*words, (RUN, "files, or standard library only"))):
        x = 400 + 170 * number
        out.append(f'<rect x="{x}" y="14" width="16" height="16" fill="{fill}" stroke="#555"/>')
        out.append(text(x + 22, 27, meaning, 12))
    return out


def layers() -> list[str]:
    """Packages from top to bottom; each may use only what stands below it."""
    out = [text(20, 296, "Layers; an import only ever points down", 15)]
    for number, (name, fill, meaning) in enumerate(LAYERS):
        y = 312 + 52 * number
        out.append(
            f'<rect x="20" y="{y}" width="900" height="40" rx="6" fill="{fill}" stroke="#555"/>'
        )
        out.append(text(36, y + 25, name, 15))
        out.append(text(250, y + 25, meaning, 13))
    notes = (
        (352, "imports no torch,"),
        (368, "no simulator"),
        (440, "import of the launcher"),
        (456, "its core alone"),
        (520, "import nothing of ours"),
    )
    return [*out, arrow(932, 316, 932, 556), *(text(944, y, words, 12) for y, words in notes)]


def svg() -> str:
    """The whole figure."""
    parts = [
        text(20, 28, "From a configuration to a report", 17),
        *legend(),
        *road(),
        *layers(),
    ]
    return document(WIDTH, HEIGHT, parts)
