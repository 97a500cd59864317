"""What a person sees while a run goes on: one line a finished stage, one that changes."""

from __future__ import annotations

import time

from launcher.core.runs import RunDir, read_progress
from launcher.drive import StageView
from launcher.output import Output
from launcher.staging.progress import spoken


class Watcher:
    """Called with every look at the run; keeps track of what was said already."""

    def __init__(self, run: RunDir, output: Output) -> None:
        self._run = run
        self._output = output
        self._said: dict[str, str] = {}
        self._since: dict[str, float] = {}
        self._begun: dict[str, tuple[float, float]] = {}

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
        started = [
            view
            for view in views
            if view.state == "active" and read_progress(self._run, view.stage.name)
        ]
        for view in started:
            self._since.setdefault(view.stage.name, time.monotonic())
        if started:
            self._output.status("   ".join(self._line(view) for view in started))

    def _announce(self, place: str, view: StageView, first: bool) -> None:
        name, stage = view.stage.name, view.stage
        head = f"{place} {name:<9}"
        if view.state == "active":
            job = f" (job {', '.join(view.ids)})" if view.ids and view.ids[0].isdigit() else ""
            self._output.say(f"{head} {stage.about}{job}")
        elif view.state == "done":
            since = self._since.get(name)
            took = f" in {clock(time.monotonic() - since)}" if since else ""
            detail = summary(self._run, name)
            note = "done earlier" if first else f"done{took}"
            self._output.say(f"{head} {note}{f': {detail}' if detail else ''}")
        elif view.state == "failed":
            self._output.say(f"{head} FAILED")
        elif view.state == "unknown":
            self._output.say(f"{head} state unknown: the cluster does not answer")

    def _line(self, view: StageView) -> str:
        took = clock(time.monotonic() - self._since[view.stage.name])
        state = summary(self._run, view.stage.name, view.stage.array)
        left = self._left(view)
        return f"{view.stage.name}: {state} [{took}{f', about {left} left' if left else ''}]"

    def _left(self, view: StageView) -> str:
        """How long the stage still takes at the speed since the first look; "" while unknown."""
        parts = read_progress(self._run, view.stage.name)
        if not parts or not all(part["total"] for part in parts):
            return ""  # one has not measured its length yet
        now, done = time.monotonic(), float(sum(part["done"] for part in parts))
        total = sum(part["total"] for part in parts) / len(parts) * view.stage.array
        at, first = self._begun.setdefault(view.stage.name, (now, done))
        if done <= first or now <= at or done >= total:
            return ""
        return spoken((total - done) * (now - at) / (done - first))


def summary(run: RunDir, stage: str, tasks: int = 1) -> str:
    """Progress of all tasks of a stage in one phrase, "" when there is none.

    Tasks that have not started know no total yet; then the phrase says how many have.
    """
    parts = read_progress(run, stage)
    if not parts:
        return ""
    done = sum(part["done"] for part in parts)
    total = sum(part["total"] for part in parts)
    newest = max(parts, key=lambda part: part["at"])
    text = f", {newest['text']}" if newest["text"] else ""
    started = f" of {len(parts)}/{tasks} tasks" if len(parts) < tasks else ""
    return f"{done}/{total} {newest['unit']}{started}{text}"


def clock(seconds: float) -> str:
    """1:05 for 65 seconds."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
