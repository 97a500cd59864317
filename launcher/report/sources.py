"""What the page shows beside the episodes: loss, videos, data facts, versions, times.

Each of them may be absent (an evaluation alone has no loss record); each reader
then returns nothing. Values are read as they were written, never recomputed.
"""

from __future__ import annotations

import base64
import datetime
import json
import math
import operator
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.runs import RunDir
from launcher.report.reading import printable

MINUTE = "%Y-%m-%d %H:%M UTC"


@dataclass(frozen=True)
class Loss:
    """The loss record: (step, loss) by step, and how many readings are no positive number."""

    points: tuple[tuple[int, float], ...]
    broken: int


@dataclass(frozen=True)
class Video:
    """One episode chosen for a video; ``problem`` says why there is none, or is empty."""

    key: str
    policy: str
    task: str
    init_state: int
    trial: int
    status: str
    steps: int
    problem: str
    path: Path

    @property
    def data(self) -> str:
        """The mp4 in base64."""
        return base64.b64encode(self.path.read_bytes()).decode("ascii")


@dataclass(frozen=True)
class Data:
    """What the policy learned from: (name, value) lines, and (code, severity, text) of checks."""

    lines: tuple[tuple[str, str], ...]
    checks: tuple[tuple[str, str, str], ...]


def loss(run: RunDir) -> Loss | None:
    """``checkpoints/metrics.jsonl``, or None without training.

    A run that was killed repeats the steps since its last checkpoint: the later line counts.
    """
    path = run.checkpoints / "metrics.jsonl"
    if not path.exists():
        return None
    lines, _ = files.read_whole_lines(path)
    by_step: dict[int, float] = {}
    unreadable = 0
    for line in lines:
        try:
            reading = json.loads(line)
            if "train/loss" in reading:  # other lines are of validation
                by_step[int(reading["step"])] = float(reading["train/loss"])
        except (ValueError, TypeError, KeyError):  # one bad line must not hide the evaluation
            unreadable += 1
    good = {step: value for step, value in by_step.items() if math.isfinite(value) and value > 0}
    return Loss(tuple(sorted(good.items())), unreadable + len(by_step) - len(good))


def videos(run: RunDir) -> list[Video]:
    """The episodes that ``videos/index*.json`` name, in the order of their keys."""
    indices = sorted(run.videos.glob("index*.json"))
    entries = {e["key"]: e for index in indices for e in files.read_json(index)}
    order = operator.itemgetter("policy", "suite", "task_id", "init_state", "trial")
    return [_video(run, entry) for entry in sorted(entries.values(), key=order)]


def _video(run: RunDir, entry: dict[str, Any]) -> Video:
    path = run.videos / Path(entry["file"]).name
    gone = "" if path.is_file() else f"videos/{path.name} is not there any more"
    return Video(
        key=printable(entry["key"]),
        policy=printable(entry["policy"]),
        task=printable(f"{entry['suite']} {entry['task_id']}"),
        init_state=int(entry["init_state"]),
        trial=int(entry["trial"]),
        status=printable(entry["status"]),
        steps=int(entry["steps"]),
        problem=printable(entry["problem"] or gone),
        path=path,
    )


def data(run: RunDir) -> Data | None:
    """``data/windows.json`` in words, or None when the run did not look at any data."""
    path = run.data / "windows.json"
    if not path.exists():
        return None
    found = files.read_json(path)
    learned = [episode for episode in found["episodes"] if not episode.get("held_out")]
    lengths = [episode["steps"] for episode in learned]
    middle = statistics.median(lengths)
    held = len(found["episodes"]) - len(learned)
    apart = f", and {held} held out, which nothing below counts" if held else ""
    epoch = ", ".join(
        f"{row['order']} {100 * row['seen']:.1f} %"
        + (f" ({100 * row['never']:.0f} % never)" if row["never"] else "")
        for row in found["epoch"]
    )
    lines = (
        ("demonstrations", f"{len(learned)}{apart}"),
        ("their length", f"{min(lengths)} to {max(lengths)} control steps, median {middle:g}"),
        ("samples", f"{found['windows']} (a picture and the {found['horizon']} actions after it)"),
        (
            "control steps covered",
            f"{found['control_steps_learned']} of {found['control_steps']} "
            f"({100 * found['coverage']:.1f} %) are part of some sample",
        ),
        ("seen in one epoch", f"{epoch}; this run: {found['order']}"),
    )
    checks = tuple((f["code"], f["severity"], printable(f["what"])) for f in found["findings"])
    return Data(lines, checks)


def versions(run: RunDir) -> list[tuple[str, str]]:
    """``lock.json`` as (name, value) lines: code digest, commit, packages; empty without it."""
    return facts(files.read_json(run.lock)) if run.lock.exists() else []


def facts(data: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A JSON object as (name, value) lines, nested names joined by a dot, None left out."""
    lines: list[tuple[str, str]] = []
    for name, value in data.items():
        if isinstance(value, dict):
            lines += facts(value, f"{prefix}{name}.")
        elif value is not None:
            text = ("no", "yes")[value] if isinstance(value, bool) else str(value)
            lines.append((printable(prefix + name), printable(text)))
    return lines


def when(run: RunDir) -> tuple[str, str] | None:
    """First and last event of the run before its report, UTC to the minute; None without events."""
    times = _times(run)
    return (f"{times[0]:{MINUTE}}", f"{times[-1]:{MINUTE}}") if times else None


def ended(run: RunDir) -> str:
    """The last of these events in ISO 8601; empty without events."""
    times = _times(run)
    return times[-1].isoformat() if times else ""


def _times(run: RunDir) -> list[datetime.datetime]:
    ledger = run.ledger
    names = [name for name in ledger.names() if ".report." not in name]
    times = sorted(event["at"] for name in names if (event := ledger.read(name)))
    return [datetime.datetime.fromtimestamp(seconds, datetime.UTC) for seconds in times]
