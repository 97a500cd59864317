"""Drives a plan to its end: submit what may start, look, and start again what is missing.

The state of a stage comes from the run's ledger first (completion markers) and
from the backend second (is anything of it still alive). Everything is recorded
before it happens, so a launcher that is killed and started again attaches to
what runs and re-submits only what is missing; several launchers of one run help
each other. What the backend cannot know or do now, it is asked again later.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from launcher import failures
from launcher.arrays import Part, Submissions
from launcher.backend import Backend
from launcher.core.errors import RdtlError
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.markers import Markers
from launcher.sending import Sender

State = Literal["waiting", "active", "unknown", "done", "failed"]
GONE_LOOKS = 3
"""Markers may reach a shared file system a moment after the job has left the queue."""


@dataclass
class StageView:
    """What is known of a stage right now."""

    stage: Stage
    state: State
    missing: list[int]
    ids: list[str]
    """Scheduler ids that still wait or run."""
    open: list[Part] = field(default_factory=list)
    """Parts that are still to be sent."""
    cancelled: bool = False
    """Whether somebody cancelled tasks that are missing."""


class Driver:
    """One launcher's hold on one run."""

    def __init__(self, run: RunDir, plan: Plan, backend: Backend) -> None:
        self._run = run
        self._plan = plan
        self._backend = backend
        self._ledger = run.ledger
        self._record = Submissions(run.ledger)
        self._markers = Markers(run)
        self._sender = Sender(self._record, self._markers, backend)
        self._attempt: dict[str, int] = {}
        self._parts: dict[str, list[Part]] = {}
        self._gone: dict[str, int] = {}

    def adopt(self) -> None:
        """Take over what an earlier launcher submitted and what still lives.

        Waits until that is known: to guess would be to submit twice.
        """
        for stage in self._plan.stages:
            name = stage.name
            # One reading for both: a claim that came in between would be overlooked, or collide.
            self._markers.refresh()
            claimed = self._markers.attempts(name)
            self._attempt[name] = claimed[-1].number if claimed else 0
            missing = set(self._missing(stage))
            parts = self._parts_of(stage, missing)
            for part in parts:
                self._sender.settle(part)
            ids = self._ids(parts)
            while (alive := self._backend.alive(ids)) is None:
                time.sleep(self._backend.poll_s)
            if alive or any(self._sender.is_open(part, missing) for part in parts):
                self._parts[name] = parts

    def _parts_of(self, stage: Stage, missing: set[int]) -> list[Part]:
        """Parts in which a missing task was claimed last: of several attempts after a resubmit."""
        last = {index: a.number for index, a in self._markers.newest(stage.name).items()}
        return [
            part
            for number in sorted({last[index] for index in missing if index in last})
            for part in self._record.parts(stage.name, number)
            if any(index in missing and last[index] == number for index in part.indices)
        ]

    def _ids(self, parts: list[Part]) -> list[str]:
        return [id_ for part in parts for id_ in self._record.ids(part) or []]

    def look(self) -> list[StageView]:
        """The state of every stage, one question to the scheduler for all of them."""
        self._markers.refresh()
        missing = {stage.name: self._missing(stage) for stage in self._plan.stages}
        for name, parts in self._parts.items():
            self._parts[name] = self._not_claimed_again(name, parts, missing[name])
        unfinished = [parts for name, parts in self._parts.items() if missing[name]]
        alive = self._backend.alive([i for parts in unfinished for i in self._ids(parts)])
        return [self._view(stage, missing[stage.name], alive) for stage in self._plan.stages]

    def _not_claimed_again(self, stage: str, parts: list[Part], missing: list[int]) -> list[Part]:
        """``parts`` without unsent ones whose missing tasks were all claimed again since."""
        newest = self._markers.newest(stage)
        # A listing may lack a claim of this moment: then the tasks' newest is an older one.
        last = {i: newest[i].number if i in newest else 0 for i in missing}
        return [
            part
            for part in parts
            if self._record.ids(part) is not None
            or any(last.get(i, math.inf) <= part.attempt for i in part.indices)
        ]

    def _view(self, stage: Stage, missing: list[int], alive: set[str] | None) -> StageView:
        parts = self._parts.get(stage.name, [])
        lacking = set(missing)
        still_open = [part for part in parts if self._sender.is_open(part, lacking)]
        wanted = [part for part in parts if not lacking.isdisjoint(part.indices)]
        cancelled = any(map(self._record.is_cancelled, wanted))
        ids = [id_ for id_ in self._ids(parts) if alive and id_ in alive]
        state: State = "waiting"
        if not missing:
            state = "done"
        elif ids or still_open:
            state = "active"
            self._gone[stage.name] = 0
        elif parts and alive is None:
            state = "unknown"
        elif parts and not all(self._markers.overtaken(stage, index) for index in missing):
            self._gone[stage.name] = self._gone.get(stage.name, 0) + 1
            state = "failed" if self._gone[stage.name] >= GONE_LOOKS else "active"
        return StageView(stage, state, missing, ids, still_open, cancelled)

    def _missing(self, stage: Stage) -> list[int]:
        return [index for index in range(stage.array) if not self._markers.done(stage, index)]

    def again(self, stage: Stage, indices: list[int], size: int | None) -> int:
        """Open an attempt of these tasks, at most ``size`` to a part, beside what is alive of
        their stage; its number."""
        name = stage.name
        opened = self._record.claim(name, self._attempt[name], indices, size)
        self._parts[name] = [*self._parts.get(name, []), *opened]
        self._attempt[name] += 1
        return self._attempt[name]

    def submit_ready(self, views: list[StageView], *, claim: bool = True) -> None:
        """Send what is open; with ``claim`` first open an attempt of stages whose turn it is."""
        by_name = {view.stage.name: view for view in views}
        for view in views:
            if claim and view.state == "waiting" and self._may_start(view.stage, by_name):
                self._claim(view)
            after = [i for p in view.stage.needs for i in by_name[p].ids]
            for part in list(view.open):
                if not self._may_follow(view.stage, by_name) or not self._send(view, part, after):
                    break

    def _claim(self, view: StageView) -> None:
        name = view.stage.name
        size = self._backend.part_size(view.stage)
        if size == 0:
            return
        self._parts[name] = self._record.claim(name, self._attempt[name], view.missing, size)
        self._attempt[name] += 1
        view.state, view.open = "active", list(self._parts[name])

    def _may_start(self, stage: Stage, views: dict[str, StageView]) -> bool:
        states = [views[parent].state for parent in stage.needs]
        if any(views[parent].cancelled for parent in stage.needs):
            return False
        if self._backend.submits_ahead:
            started = all(state in ("done", "active") for state in states)
            return (started and self._may_follow(stage, views)) or self._all_ended(stage, states)
        return all(state == "done" for state in states) or self._all_ended(stage, states)

    def _all_ended(self, stage: Stage, states: list[State]) -> bool:
        return stage.needs_ended and all(state in ("done", "failed") for state in states)

    def _may_follow(self, stage: Stage, views: dict[str, StageView]) -> bool:
        """Whether the scheduler can be told what to wait for: all that is missing is there."""
        for parent in (views[name] for name in stage.needs):
            lacking = set(parent.missing)
            for part in self._parts.get(parent.stage.name, []):
                ids = self._record.ids(part)
                there = ids is not None and not set(ids).isdisjoint(parent.ids)
                if not there and not stage.needs_ended and not lacking.isdisjoint(part.indices):
                    return False
            if parent.open:
                return False
        return True

    def _send(self, view: StageView, part: Part, after: list[str]) -> bool:
        """Send one part unless it is in already; False when the next part must wait too."""
        ids = self._sender.send(view.stage, part, after)
        if ids is None:
            return False
        view.ids += ids
        view.open.remove(part)
        return True

    def ids(self, stage: str) -> list[str]:
        """Scheduler ids of all that was sent of the attempt that this driver goes on with."""
        return self._ids(self._parts.get(stage, []))

    def failure(self, views: list[StageView]) -> RdtlError | None:
        """The first stage that failed, as the error its job left or with the end of its log."""
        for view in views:
            if view.state == "failed":
                return self._explain(view)
        return None

    def _explain(self, view: StageView) -> RdtlError:
        name = view.stage.name
        attempt = self._attempt[name]
        index = failures.telling_index(self._markers, name, view.missing, attempt)
        claim = self._ledger.read(f"claim.{name}.a{attempt}") or {"at": time.time()}
        ids = self.ids(name)
        return failures.explain(
            self._run, view.stage, index, attempt, lambda: self._backend.ended(ids, claim["at"])
        )

    def cancel(self) -> None:
        """End everything that this run still has alive."""
        self._backend.cancel([i for parts in self._parts.values() for i in self._ids(parts)])


def submit_all(run: RunDir, plan: Plan, backend: Backend) -> dict[str, list[str]]:
    """Send every stage, chained by dependencies, without waiting for any to end; ids by stage.

    Waits only for a cluster that does not answer or takes no more tasks now. Raises
    the first failure, RDTL-S036 once somebody cancelled it.
    """
    driver = Driver(run, plan, backend)
    driver.adopt()
    while True:
        views = driver.look()
        if not any(map(_is_unsent, views)):
            return {stage.name: driver.ids(stage.name) for stage in plan.stages}
        driver.submit_ready(views)
        if any(map(_is_unsent, views)):
            failure = driver.failure(views)
            if failure:
                raise failure
            time.sleep(backend.poll_s)


def _is_unsent(view: StageView) -> bool:
    return bool(view.open) or view.cancelled or view.state in ("waiting", "unknown")


def drive(
    run: RunDir, plan: Plan, backend: Backend, watch: Callable[[list[StageView]], Any]
) -> None:
    """Run the plan to its end; ``watch`` is shown every look. Raises the first failure.

    On a local site an interrupt (Ctrl-C) ends the tasks; on a cluster they go on.
    """
    driver = Driver(run, plan, backend)
    driver.adopt()
    try:
        while True:
            views = driver.look()
            driver.submit_ready(views)
            watch(views)
            if all(view.state == "done" for view in views):
                return
            failure = driver.failure(views)
            if failure and not any(view.state in ("active", "unknown") for view in views):
                raise failure
            time.sleep(backend.poll_s)
    except KeyboardInterrupt:
        if not backend.submits_ahead:
            driver.cancel()
        raise
