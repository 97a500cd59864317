"""Numbers about a stage that goes on: how far, how fast, how long still, what broke."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import Any

from launcher.core import files
from launcher.core.runs import RunDir, read_progress
from launcher.judges import Task
from launcher.markers import Markers
from launcher.status import RunStatus, StageStatus

TASKS = "tasks"
"""Unit of a stage that reports no progress of its own."""
RECENT = 20
"""Lines of the loss record over which speed is taken."""
COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
LOG_END = 4096
"""Bytes at the end of a log in which its last line is looked for."""


@dataclass(frozen=True)
class Figures:
    """What is known of a stage beside the states of its tasks."""

    done: float = 0.0
    total: float = 0.0
    unit: str = ""
    text: str = ""
    rate: float = 0.0
    """``unit`` a second, 0 when it is not known."""
    loss: tuple[float, ...] = ()
    checkpoint: str = ""
    error: str = ""

    @property
    def seconds_left(self) -> float | None:
        """How long it still takes at this rate, None when that is not known."""
        return (self.total - self.done) / self.rate if self.rate > 0 and self.total else None


def of(one: RunStatus, stage: StageStatus, now: float | None = None) -> Figures:
    """The figures of one stage of a run at ``now`` (seconds since 1970)."""
    now = time.time() if now is None else now
    error = _error(one.run, stage)
    if not stage.counts.get("running"):
        return Figures(error=error)
    parts = {part["index"]: part for part in read_progress(one.run, stage.stage.name)}
    lines = _loss(one.run) if stage.stage.name == "train" else []
    if parts:
        done, total, rate = _units(one.markers, stage, parts)
        newest = max(parts.values(), key=lambda part: part["at"])
        unit, text = newest["unit"], newest["text"]
    else:
        done, total, unit, text = stage.counts.get("done", 0), stage.stage.array, TASKS, ""
        rate = _tasks_rate(one.markers, stage, now)
    rate = _steps_rate(lines) or rate
    losses = tuple(float(line["train/loss"]) for line in lines)
    where = _checkpoint(one.run, now) if lines else ""
    return Figures(done, total, unit, text, rate, losses, where, error)


def _units(
    markers: Markers, stage: StageStatus, parts: dict[int, dict[str, Any]]
) -> tuple[float, float, float]:
    """Done, total and rate of all tasks; tasks that know no total yet count as the others do."""
    done = float(sum(part["done"] for part in parts.values()))
    total = sum(part["total"] for part in parts.values()) / len(parts) * stage.stage.array
    rate = 0.0
    for task in stage.tasks:
        part = parts.get(task.index)
        start = _start(markers, stage.stage.name, task)
        if task.state == "running" and part and start and part["at"] > start["at"]:
            # After a requeue a task begins with what earlier starts did.
            new = part["done"] - start.get("progress", 0)
            rate += max(0.0, new) / (part["at"] - start["at"])
    return done, total, rate


def _start(markers: Markers, stage: str, task: Task) -> dict[str, Any] | None:
    mark = markers.marks(stage, task.index).get(task.attempt)
    return mark.started.get(mark.restart) if mark else None


def _tasks_rate(markers: Markers, stage: StageStatus, now: float) -> float:
    """Tasks a second since the newest attempt first started one."""
    name, number = stage.stage.name, stage.attempts
    marks = [m for t in stage.tasks if (m := markers.marks(name, t.index).get(number))]
    starts = [event["at"] for mark in marks for event in mark.started.values()]
    ended = sum(mark.done(stage.stage.nodes) for mark in marks)
    return ended / (now - min(starts)) if starts and now > min(starts) else 0.0


def _loss(run: RunDir) -> list[dict[str, Any]]:
    path = run.checkpoints / "metrics.jsonl"
    if not path.exists():
        return []
    lines, _ = files.read_whole_lines(path)
    return [line for line in map(json.loads, lines) if "train/loss" in line]


def _steps_rate(lines: list[dict[str, Any]]) -> float:
    recent = lines[-RECENT:]
    if len(recent) < 2 or recent[-1]["seconds"] <= recent[0]["seconds"]:
        return 0.0
    steps = recent[-1]["step"] - recent[0]["step"]
    return float(steps / (recent[-1]["seconds"] - recent[0]["seconds"]))


def _checkpoint(run: RunDir, now: float) -> str:
    """Name and age of the newest complete checkpoint."""
    found = sorted(run.checkpoints.glob("step_*"))
    if not found:
        return ""
    minutes = int(max(0.0, now - found[-1].stat().st_mtime) / 60)
    return f"{found[-1].name}, {minutes or '<1'} min ago"


def _error(run: RunDir, stage: StageStatus) -> str:
    """The first failed task, what it said, and the last line of its log."""
    task = next((task for task in stage.tasks if task.state == "failed"), None)
    if task is None:
        return ""
    number = f"task {task.index}: " if stage.stage.array > 1 else ""
    said = _last_line(run, stage.stage.name, task)
    return f"{number}{task.why}{f': {said}' if said and said not in task.why else ''}"


def _last_line(run: RunDir, stage: str, task: Task) -> str:
    path = run.log(stage, task.attempt, task.index, 0)
    if not path.exists():
        return ""
    with path.open("rb") as handle:
        handle.seek(max(0, path.stat().st_size - LOG_END))
        lines = COLOUR.sub("", handle.read().decode("utf-8", errors="replace")).splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
