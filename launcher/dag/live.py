"""Shows a run that goes on elsewhere: a live tree in a terminal, lines in a log."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live

from launcher.core.errors import RdtlError, RemoteError
from launcher.dag import draw, view, words
from launcher.dag.client import Order
from launcher.dag.follow import events
from launcher.dag.view import View
from launcher.output import Output

NVIDIA = [
    "sh", "-c",
    "command -v nvidia-smi >/dev/null || exit 0; nvidia-smi --format=csv,noheader,nounits "
    "--query-gpu=index,memory.used,memory.total,utilization.gpu",
]  # fmt: skip
GPU_EVERY_S = 10.0
WORDS = {
    "start": "{name}: {steps} steps",
    "step_begin": "{step}: begins{again}",
    "step_done": "{step}: done in {took}",
    "step_skip": "{step}: skipped, {why}",
    "step_fail": "{step}: failed, {code} {reason}",
    "blocked": "{step}: blocked by {by}",
    "retry": "{step}: once more, {reason}",
    "remedy": "{step}: {remedy}: {did}",
    "signature": "{step}: {code} {cause}; {fix}",
    "lost": "connection lost; trying again (the steps go on)",
    "gone": "the runner is gone",
}
NOTED = ("retry", "remedy", "signature", "lost")
"""Events that the tree does not show: the last of them stand below it."""
NOTES = 4


class Gpus:
    """What nvidia-smi says there, asked in the background while somebody looks."""

    def __init__(self, what: Order) -> None:
        self._what = what
        self._done = threading.Event()
        self.lines: list[str] = []

    def __enter__(self) -> Gpus:
        threading.Thread(target=self._ask, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _ask(self) -> None:
        while not self._done.is_set():
            try:
                rows = self._what.place.run(NVIDIA).splitlines()
            except RdtlError:  # the connection is cut: the events say so
                rows = []
            self.lines = [gpu_line(row) for row in rows]
            self._done.wait(GPU_EVERY_S)


def gpu_line(row: str) -> str:
    """``GPU 0: 78.7 of 95.6 GiB, 99 %`` of a line of nvidia-smi (MiB)."""
    number, used, total, use = (word.strip() for word in row.split(","))
    return f"GPU {number}: {int(used) / 1024:.1f} of {int(total) / 1024:.1f} GiB, {use} %"


def watch(what: Order, output: Output, after: int = 0) -> View:
    """Follow a run from the event behind ``after`` to the end of its runner; what is known then."""
    found = view.of(step.name for step in what.graph.steps)
    console = Console(stderr=True, highlight=False, soft_wrap=False)
    if not console.is_terminal or output.as_json:
        for event in events(what, after):
            if event is not None and found.take(event):
                say(output, event)
        return found
    notes: deque[str] = deque(maxlen=NOTES)
    with Gpus(what) as gpus, Live(console=console, auto_refresh=False) as live:
        for _ in _taken(what, found, after, notes):
            live.update(_frame(what, found, [*gpus.lines, *notes], console), refresh=True)
    return found


def _taken(what: Order, found: View, after: int, notes: deque[str]) -> Iterator[None]:
    """Once about every quarter of a second, however fast events come."""
    shown = 0.0
    for event in events(what, after):
        if event is not None and found.take(event) and event["event"] in NOTED:
            notes.append(telling(event))
        if event is None or time.monotonic() - shown > 0.25:
            shown = time.monotonic()
            yield
    yield


def _frame(what: Order, found: View, more: list[str], console: Console) -> Group:
    beside = [*([f"last checkpoint: {found.checkpoint}"] if found.checkpoint else []), *more]
    plain = not console.encoding.lower().startswith("utf")
    now = time.time() + found.clock_ahead
    return Group(*draw.frame(what.graph, found, beside, now, console.width, plain))


def say(output: Output, event: Mapping[str, Any]) -> None:
    """One line for an event that a person wants in a log; progress as a status line."""
    if event["event"] == "marker":
        output.status(f"{event['step']}: {view.progress(event['values']) or event['name']}")
    elif text := telling(event):
        output.say(text)


def telling(event: Mapping[str, Any]) -> str:
    """An event in words; empty for those that only programs want."""
    form = WORDS.get(event["event"], "")
    again = f", try {event['attempt']}" if event.get("attempt", 1) > 1 else ""
    took = words.length(event["seconds"]) if "seconds" in event else ""
    return form.format_map({**event, "again": again, "took": took})


def result(what: Order, found: View) -> dict[str, Any]:
    """The run for programs."""
    steps = {
        name: {"state": step.state, "seconds": step.seconds, "told": step.told, **step.values}
        for name, step in found.steps.items()
    }
    facts = {"place": what.place.name, "run": what.run, "ended": found.ended, "rc": found.rc}
    return {"recipe": what.graph.name, **facts, "checkpoint": found.checkpoint, "steps": steps}


def failure(what: Order, found: View) -> RdtlError | None:
    """What went wrong with a run that has ended: its first failed step, a lost runner."""
    if found.ended == "end" and found.rc == 0:
        return None
    stopped = found.ended == "end"
    return step_failure(what, found) or RemoteError(
        "RDTL-U139",
        "the runner was stopped" if stopped else "the runner is gone without a word",
        where=f"{what.place.name}: {what.run}",
        why="" if stopped else "it was killed, or the machine was started again",
        fix="`rdtl recipe run` with the same words goes on; what is finished stays finished",
    )


def step_failure(what: Order, found: View) -> RdtlError | None:
    """Why the first failed step failed, or None."""
    for name, step in found.steps.items():
        if step.state == "failed":
            return RdtlError(
                step.code,
                f"{name}: {step.told}",
                where=f"{what.place.name}: {what.run}/steps/{name}/log",
                why=step.cause,
                fix=step.fix,
            )
    return None
