"""What the page shows beside the episodes: loss, videos, data facts, versions, times.

Each of them may be absent (an evaluation alone has no loss record); each reader
then returns nothing. Values are read as they were written, never recomputed.
"""

from __future__ import annotations

import base64
import datetime
import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.runs import RunDir
from launcher.report.aggregate import printable


@dataclass(frozen=True)
class Loss:
    """The loss record: (step, loss) by step, finite positive losses only, and how many were not."""

    points: tuple[tuple[int, float], ...]
    broken: int


@dataclass(frozen=True)
class Video:
    """One replayed episode; ``data`` is the mp4 in base64."""

    key: str
    policy: str
    status: str
    steps: int
    init_state: int
    data: str


def loss(run: RunDir) -> Loss | None:
    """``checkpoints/loss.jsonl``, or None without training.

    A run that was killed repeats the steps since its last checkpoint: the later line counts.
    """
    path = run.checkpoints / "loss.jsonl"
    if not path.exists():
        return None
    lines, _ = files.read_whole_lines(path)
    by_step = {int(data["step"]): float(data["loss"]) for data in map(json.loads, lines)}
    good = {step: value for step, value in by_step.items() if math.isfinite(value) and value > 0}
    return Loss(tuple(sorted(good.items())), len(by_step) - len(good))


def videos(run: RunDir) -> list[Video]:
    """The videos that ``videos/index*.json`` name and that exist."""
    found = []
    for index in sorted(run.videos.glob("index*.json")):
        for entry in files.read_json(index):
            path = run.videos / Path(entry["file"]).name
            if path.is_file():
                found.append(_video(entry, path))
    return found


def _video(entry: dict[str, Any], path: Path) -> Video:
    return Video(
        key=printable(entry["key"]),
        policy=printable(entry["policy"]),
        status=printable(entry["status"]),
        steps=int(entry["steps"]),
        init_state=int(entry["init_state"]),
        data=base64.b64encode(path.read_bytes()).decode("ascii"),
    )


def data_facts(run: RunDir) -> list[tuple[str, str]]:
    """``data/windows.json`` as (name, value) lines; long lists of numbers by their range."""
    return _read_facts(run.data / "windows.json")


def versions(run: RunDir) -> list[tuple[str, str]]:
    """``lock.json`` as (name, value) lines: code digest, commit, packages."""
    return _read_facts(run.lock)


def when(run: RunDir) -> tuple[str, str] | None:
    """First and last event of the run before its report, UTC to the minute; None without events."""
    ledger = run.ledger
    names = [name for name in ledger.names() if ".report." not in name]
    times = sorted(event["at"] for name in names if (event := ledger.read(name)))
    if not times:
        return None
    return _minute(times[0]), _minute(times[-1])


def _minute(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _read_facts(path: Path) -> list[tuple[str, str]]:
    return facts(files.read_json(path)) if path.exists() else []


def facts(data: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A JSON object as (name, value) lines, nested names joined by a dot, None left out."""
    lines: list[tuple[str, str]] = []
    for name, value in data.items():
        full = printable(f"{prefix}{name}")
        if isinstance(value, dict):
            lines += facts(value, f"{full}.")
        elif value is not None:
            lines.append((full, printable(_value(value))))
    return lines


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if not isinstance(value, list):
        return str(value)
    if len(value) > 6 and all(isinstance(item, int | float) for item in value):
        middle = statistics.median(value)
        return f"{len(value)} values, {min(value):g} to {max(value):g}, median {middle:g}"
    return "; ".join(_item(item) for item in value) or "none"


def _item(item: Any) -> str:
    """One entry of a list; an object, such as a finding, by its filled values."""
    return " – ".join(str(v) for v in item.values() if v) if isinstance(item, dict) else str(item)
