"""What a person sees while a run goes on: one line a finished stage, one that changes."""

from __future__ import annotations

import time
from collections.abc import Callable

from launcher.core.runs import RunDir, read_progress
from launcher.drive import StageView
from launcher.output import Output


class Watcher:
    """Called with every look at the run; keeps track of what was said already."""

    def __init__(self, run: RunDir, output: Output) -> None:
        self._run = run
        self._output = output
        self._said: dict[str, str] = {}
        self._since: dict[str, float] = {}

    def __call__(self, views: list[StageView]) -> None:
        """Say what changed, then rewrite the line of what is going on."""
        total = len(views)
        for number, view in enumerate(views, 1):
            name = view.stage.name
            if view.state == self._said.get(name):
                continue
            first = name not in self._said
            self._said[name] = view.state
            self._announce(f"[{number}/{total}]", view, first)
        active = [view for view in views if view.state == "active"]
        now = [self._line(view) for view in active if read_progress(self._run, view.stage.name)]
        if now:
            self._output.status("   ".join(now))

    def _announce(self, place: str, view: StageView, first: bool) -> None:
        name, stage = view.stage.name, view.stage
        if view.state == "active":
            self._since[name] = time.monotonic()
            jobs = f" (job {', '.join(view.ids)})" if view.ids and view.ids[0].isdigit() else ""
            self._output.say(f"{place} {name:<9} {stage.about}{jobs}")
        elif view.state == "done":
            took = time.monotonic() - self._since.get(name, time.monotonic())
            note = "done earlier" if first else f"done after {clock(took)}"
            detail = summary(self._run, name)
            self._output.say(f"{place} {name:<9} {note}{f': {detail}' if detail else ''}")
        elif view.state == "failed":
            self._output.say(f"{place} {name:<9} FAILED")

    def _line(self, view: StageView) -> str:
        since = self._since.get(view.stage.name, time.monotonic())
        return f"{view.stage.name}: {summary(self._run, view.stage.name)} [{clock(time.monotonic() - since)}]"


def summary(run: RunDir, stage: str) -> str:
    """Progress of all tasks of a stage in one phrase, "" when there is none."""
    parts = read_progress(run, stage)
    if not parts:
        return ""
    done = sum(part["done"] for part in parts)
    total = sum(part["total"] for part in parts)
    newest = max(parts, key=lambda part: part["at"])
    text = f", {newest['text']}" if newest["text"] else ""
    return f"{done}/{total} {newest['unit']}{text}"


def clock(seconds: float) -> str:
    """1:05 for 65 seconds."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def both(
    first: Callable[[list[StageView]], None], second: Callable[[list[StageView]], None]
) -> Callable[[list[StageView]], None]:
    """A watcher that calls two."""

    def watch(views: list[StageView]) -> None:
        first(views)
        second(views)

    return watch
