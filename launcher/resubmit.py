"""Submitting again what is missing or failed, and nothing else.

What is done stays done, unless it has read what is now made again (videos, a report). What
waits or runs is left alone: a task that may still be alive is never started a second time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from launcher import status
from launcher.backend import Backend
from launcher.core.errors import RemoteError
from launcher.core.plan import Stage
from launcher.core.runs import RunDir
from launcher.drive import Driver
from launcher.judges import LIVE, State
from launcher.markers import Markers
from launcher.status import RunStatus

Which = Literal["all", "failed", "missing"]
STATES: dict[Which, tuple[State, ...]] = {
    "all": ("failed", "gone", "unsubmitted"),
    "failed": ("failed",),
    "missing": ("gone", "unsubmitted"),
}


ROUNDS = 5
"""Looks at an unclear or full cluster before the rest is left to `rdtl runs resume`."""


@dataclass
class Resubmitted:
    """Tasks of one stage that were opened again, and the jobs that they became."""

    stage: str
    indices: list[int]
    attempt: int
    ids: list[str]


def resubmit(run: RunDir, backend: Backend, which: Which) -> tuple[list[Resubmitted], list[str]]:
    """Submit again the tasks that ``which`` names, stage by stage.

    A later stage that lost its chance because an earlier one failed comes along when
    all that it needs is done, alive or submitted here. Second in the answer: stages that
    read what these tasks make but have begun already. Raises RemoteError RDTL-S032
    when nobody can say what lives.
    """
    driver = Driver(run, status.open_run(run), backend)
    # Before the look: a launcher that submits in between is then seen, or collides with us.
    driver.adopt()
    one = _look(run)
    wanted = chosen(one, which, ahead=backend.submits_ahead)
    # For all before the first is opened: a stage without its parent would begin at once.
    sizes = [backend.part_size(stage) for stage, _ in wanted]
    if 0 in sizes:
        raise _silent("it is unknown how many tasks it takes at once", "nothing was submitted")
    found = [
        Resubmitted(stage.name, indices, driver.again(stage, indices, size), [])
        for (stage, indices), size in zip(wanted, sizes, strict=True)
    ]
    _send(driver, backend)
    early = _let_wait(driver, one, {part.stage for part in found}, backend)
    markers = Markers(run)
    for part in found:
        opened = {a.number: a for a in markers.attempts(part.stage)}
        part.ids = opened[part.attempt].ids
    return found, early


def chosen(one: RunStatus, which: Which, *, ahead: bool) -> list[tuple[Stage, list[int]]]:
    """Stages with the tasks to submit. Without ``ahead`` only such whose parents are done."""
    found = []
    ready: dict[str, bool] = {}
    opened: set[str] = set()
    for status_ in one.stages:
        stage = status_.stage
        reads_more = stage.needs_ended and not opened.isdisjoint(stage.needs)
        states = (*STATES[which], "done") if reads_more else STATES[which]
        wanted = [task.index for task in status_.tasks if task.state in states]
        kept = [task for task in status_.tasks if task.index not in wanted]
        fine = sum(task.state in ("done", *LIVE) for task in kept)
        may = stage.needs_ended or all(ready[parent] for parent in stage.needs)
        may = may and (ahead or _done(one, stage.needs))
        if wanted and may:
            found.append((stage, wanted))
            opened.add(stage.name)
            fine += len(wanted)
        ready[stage.name] = fine == stage.array
    return found


def _done(one: RunStatus, names: tuple[str, ...]) -> bool:
    by_name = {stage.stage.name: stage for stage in one.stages}
    return all(by_name[n].counts.get("done", 0) == by_name[n].stage.array for n in names)


def _look(run: RunDir) -> RunStatus:
    one = status.of(run, fresh=True)
    if one.counts["unknown"] or one.note:
        raise _silent(
            "it is unknown what still runs", "what runs would be started a second time", one.note
        )
    return one


def _silent(unknown: str, why: str, note: str = "") -> RemoteError:
    return RemoteError(
        "RDTL-S032",
        f"the scheduler does not answer, so {unknown}",
        where=note,
        why=why,
        fix="run the same command again later",
    )


def _let_wait(driver: Driver, one: RunStatus, opened: set[str], backend: Backend) -> list[str]:
    """Let what waits for the end of an opened stage wait for all of it; stages that are too early.

    They read what those tasks make, and would be done before it is there.
    """
    alive = {view.stage.name: view.ids for view in driver.look()}
    early = []
    for stage in one.stages:
        needs = stage.stage.needs
        if not stage.stage.needs_ended or not opened.intersection(needs):
            continue
        parents = [id_ for parent in needs for id_ in alive[parent]]
        waits = stage.jobs() and parents and backend.wait_for(stage.jobs(), parents)
        if stage.counts.get("running") or (stage.jobs() and not waits):
            early.append(stage.stage.name)
    return early


def _send(driver: Driver, backend: Backend) -> None:
    for left in reversed(range(ROUNDS)):
        views = driver.look()
        driver.submit_ready(views, claim=False)
        if not left or not any(view.open for view in views):
            return
        time.sleep(backend.poll_s)
