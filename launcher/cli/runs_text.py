"""What is said of a run: words for a table, remarks below it, and the same as JSON."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from launcher.arrays import spans
from launcher.staging.results import behind

if TYPE_CHECKING:
    from launcher.judges import State
    from launcher.status import RunStatus, StageStatus

LONGEST = 40
ORDER: tuple[State, ...] = ("running", "waiting", "failed", "gone", "unknown", "unsubmitted")


def remarks(one: RunStatus) -> list[str]:
    """What a person should know beside the table."""
    said = [
        f"{s.stage.name}: {s.counts[state]} {state}{_which(s, state)}: {s.why(state)}"
        for s in one.stages
        for state in ORDER
        if s.why(state)
    ]
    for s in one.stages:
        again = [task.restart for task in s.tasks if task.restart]
        if again:
            said.append(f"{s.stage.name}: {len(again)} started again, up to {max(again)} times")
    said += [f"{s.stage.name}: job {', '.join(s.jobs())}" for s in one.stages if s.jobs()]
    if one.kind == "unknown":
        said.append(f"it cannot be looked at from here: {one.note}")
    elif one.note:
        said.append(f"the scheduler does not answer: {one.note}")
    elif one.asked_at:
        said.append(f"the queue was asked {age(one.asked_at)} ago")
    if one.word in ("failed", "stopped"):
        first = "correct the cause, then " if one.word == "failed" else ""
        said.append(f"next: {first}rdtl runs resume {one.run.root.name}")
    said += behind(one.run.root)
    said.append(f"logs: rdtl runs logs {one.run.root.name}, files in {one.run.root / 'logs'}")
    return said


def _which(stage: StageStatus, state: State) -> str:
    """The numbers of tasks of an array that need somebody: `` (5,18,31-33)``."""
    if stage.stage.array == 1 or state not in ("failed", "gone"):
        return ""
    text = spans([task.index for task in stage.tasks if task.state == state])
    return f" ({text if len(text) <= LONGEST else text[:LONGEST] + '…'})"


def facts(one: RunStatus) -> dict[str, Any]:
    """JSON form of a run's state."""
    return {
        "name": one.run.root.name,
        "run": str(one.run.root),
        "site": one.plan.site,
        "state": one.word,
        "note": one.note,
        "stages": [
            {
                "stage": s.stage.name,
                "tasks": s.stage.array,
                "done": s.counts.get("done", 0),
                "counts": s.counts,
                "attempts": s.attempts,
                "why": {state: s.why(state) for state in ORDER if s.why(state)},
                "jobs": s.jobs(),
            }
            for s in one.stages
        ],
    }


def others(stage: StageStatus) -> str:
    """Tasks that are not done, by state."""
    said = [f"{stage.counts[s]} {s}" for s in ORDER if stage.counts.get(s)]
    return ", ".join(said) or "–"


def done(one: RunStatus) -> str:
    """Tasks that are done, of all."""
    return f"{one.counts['done']}/{sum(one.counts.values())}"


def current_stage(one: RunStatus) -> str:
    """The first stage that is not done."""
    open_ = [s for s in one.stages if s.counts.get("done", 0) < s.stage.array]
    return open_[0].stage.name if open_ else "–"


def age(at: float) -> str:
    """Time since ``at`` (seconds since 1970) in its largest unit."""
    seconds = max(0.0, time.time() - at)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
