"""Submitting again what is missing or failed, and nothing else.

What is done stays done, and what waits or runs is left alone: a task that may still
be alive is never started a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from launcher import child, status
from launcher.core.errors import RefusedError, RemoteError
from launcher.core.runs import RunDir
from launcher.drive import Backend
from launcher.judges import LIVE, State, Task
from launcher.status import RunStatus, StageStatus

Which = Literal["all", "failed", "missing"]
STATES: dict[Which, tuple[State, ...]] = {
    "all": ("failed", "gone", "unsubmitted"),
    "failed": ("failed",),
    "missing": ("gone", "unsubmitted"),
}


@dataclass(frozen=True)
class Resubmitted:
    """Tasks of one stage that were submitted again."""

    stage: str
    indices: list[int]
    attempt: int
    ids: list[str]


def look(run: RunDir) -> RunStatus:
    """The state of ``run`` as it is this moment.

    Raises RefusedError RDTL-S035 for another user's run, RemoteError RDTL-S032 when the
    scheduler does not answer: then nobody knows what lives.
    """
    child.require_own(run, "continue")
    one = status.of(run, fresh=True)
    if one.counts["unknown"] or one.note:
        raise RemoteError(
            "RDTL-S032",
            "the scheduler does not answer, so it is unknown what still runs",
            where=one.note,
            why="what runs would be started a second time",
            fix="run the same command again later",
        )
    return one


def resubmit(one: RunStatus, backend: Backend, which: Which) -> list[Resubmitted]:
    """Submit again the tasks of ``one`` that ``which`` names, stage by stage.

    A later stage that lost its chance because an earlier one failed comes along when
    all that it needs is done, alive or submitted here.
    """
    found: list[Resubmitted] = []
    ids: dict[str, list[str]] = {}
    ready: dict[str, bool] = {}
    for stage in one.stages:
        name, needs = stage.stage.name, stage.stage.needs
        chosen = [task for task in stage.tasks if task.state in STATES[which]]
        alive = [task for task in stage.tasks if task.state in LIVE]
        ids[name] = sorted({task.job for task in alive})
        may = all(ready[parent] for parent in needs) or stage.stage.needs_ended
        if chosen and may and (backend.submits_ahead or _all_done(one, needs)):
            after = [id_ for parent in needs for id_ in ids[parent]]
            found.append(_submit(one, stage, chosen, backend, after))
            ids[name] += found[-1].ids
            chosen = []
        covered = sum(task.state == "done" for task in stage.tasks) + len(alive)
        submitted = len(found[-1].indices) if found and found[-1].stage == name else 0
        ready[name] = covered + submitted == stage.stage.array
    return found


def _all_done(one: RunStatus, names: tuple[str, ...]) -> bool:
    by_name = {stage.stage.name: stage for stage in one.stages}
    return all(by_name[n].counts.get("done", 0) == by_name[n].stage.array for n in names)


def _submit(
    one: RunStatus, stage: StageStatus, chosen: list[Task], backend: Backend, after: list[str]
) -> Resubmitted:
    ledger, name = one.run.ledger, stage.stage.name
    alive = {task.job for task in stage.tasks if task.state in LIVE}
    lingering = {task.job for task in chosen if task.job} - alive
    backend.cancel(sorted(backend.alive(sorted(lingering))))  # it waits for what can never be
    attempt = ledger.current_attempt(name) + 1
    indices = [task.index for task in chosen]
    if not ledger.publish(f"claim.{name}.a{attempt}", indices=indices):
        raise RefusedError(
            "RDTL-U012",
            f"another rdtl submits stage {name} of this run right now",
            where=str(one.run.root),
            why="the stage would run twice",
            fix="rdtl runs show says what it submitted",
        )
    ids = backend.submit(one.plan, stage.stage, attempt, indices, after)
    ledger.publish(f"submitted.{name}.a{attempt}", ids=ids)
    return Resubmitted(name, indices, attempt, ids)
