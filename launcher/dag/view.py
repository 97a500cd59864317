"""What is known of a run from its events: states, durations, progress, findings."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["waiting", "running", "done", "skipped", "failed", "blocked", "stopped"]
PROGRESS = ("step", "steps", "loss", "sps", "pace_s", "gpu", "eta")
"""Values of markers that say how far a step is, in the order in which they are shown."""
LAST_CHECKPOINT = re.compile("checkpoint", re.IGNORECASE)


@dataclass
class StepView:
    """One step as it stands."""

    state: State = "waiting"
    began: float | None = None
    """When it began, on the machine's clock."""
    seconds: float | None = None
    attempt: int = 1
    values: dict[str, Any] = field(default_factory=dict)
    told: str = ""
    """Why it failed or was skipped, in a line."""
    code: str = ""
    cause: str = ""
    fix: str = ""


@dataclass
class View:
    """A run as it stands after some events; :meth:`take` is the only way on."""

    steps: dict[str, StepView]
    seq: int = 0
    began: float | None = None
    clock_ahead: float = 0.0
    """How much the machine's clock is ahead of ours, as far as events tell."""
    checkpoint: str = ""
    ended: Literal["", "end", "gone"] = ""
    rc: int | None = None

    def take(self, event: Mapping[str, Any]) -> bool:
        """Note an event; False for one that was noted before."""
        kind, seq = str(event["event"]), int(event["seq"])
        if kind == "lost":
            return True
        if kind in ("alive", "gone"):
            self.clock_ahead = float(event["at"]) - time.time()
            self.ended = "gone" if kind == "gone" else ""
            return kind == "gone"
        if seq <= self.seq:
            return False
        self.seq = seq
        if kind == "start":
            self._again(float(event["at"]))
        elif kind == "end":
            self.ended, self.rc = "end", int(event["rc"])
        elif event.get("step") in self.steps:
            self._step(kind, self.steps[str(event["step"])], event)
        return True

    def _again(self, at: float) -> None:
        """Another runner begins: what ran then was cut off, what waited waits again."""
        self.began, self.ended, self.rc = at, "", None
        for name, step in self.steps.items():
            if step.state != "done":
                self.steps[name] = StepView()

    def _step(self, kind: str, step: StepView, event: Mapping[str, Any]) -> None:
        if kind == "step_begin":
            began = step.began if event["attempt"] > 1 else None
            step.state, step.began = "running", began or float(event["at"])
            step.attempt, step.seconds, step.told = int(event["attempt"]), None, ""
        elif kind == "step_done":
            step.state, step.seconds = "done", float(event["seconds"])
        elif kind == "step_fail":
            step.state = "failed" if event["reason"] != "stopped" else "stopped"
            step.seconds = float(event["seconds"])
            step.code, step.told = str(event["code"]), str(event["reason"])
            step.cause, step.fix = str(event["cause"]), str(event["fix"])
        elif kind == "step_skip":
            step.state, step.told = "skipped", str(event.get("why") or "")
        elif kind == "blocked":
            step.state, step.told = "blocked", f"needs {', '.join(event['by'])}"
        elif kind == "marker":
            self._marker(step, event)

    def _marker(self, step: StepView, event: Mapping[str, Any]) -> None:
        values = {key: value for key, value in event["values"].items() if value is not None}
        if LAST_CHECKPOINT.search(event["name"]):
            self.checkpoint = str(values.get("checkpoint") or values.get("path") or values)
        else:
            step.values |= values


def of(names: Iterable[str]) -> View:
    """The view of a run that has not begun."""
    return View({name: StepView() for name in names})


def progress(values: Mapping[str, Any]) -> str:
    """``step 120/10000, loss 0.23`` from the values of markers."""
    shown = {key: values[key] for key in PROGRESS if key in values}
    if "step" in shown and "steps" in shown:
        shown["step"] = f"{shown['step']}/{shown.pop('steps')}"
    if "pace_s" in shown:
        shown["pace_s"] = f"{float(shown['pace_s']):.3g} s a step"
    return ", ".join(
        str(value) if key == "pace_s" else f"{key} {value}" for key, value in shown.items()
    )
