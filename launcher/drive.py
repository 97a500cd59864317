"""Drives a plan to its end: submit what may start, look, and start again what is missing.

The state of a stage comes from the run's ledger first (completion markers) and
from the backend second (is anything of it still alive). Everything is recorded
before it happens, so a launcher that is killed and started again attaches to
what runs and re-submits only what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from launcher.core import errors
from launcher.core.errors import RdtlError, RefusedError
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir

State = Literal["waiting", "active", "done", "failed"]


class Backend(Protocol):
    """What driving needs of a site."""

    poll_s: float
    submits_ahead: bool
    """Whether stages are submitted before their parents ended (the scheduler keeps the order)."""

    def submit(
        self, plan: Plan, stage: Stage, attempt: int, indices: list[int], after: list[str]
    ) -> list[str]: ...
    def find(self, stage: str, attempt: int) -> list[str]: ...
    def alive(self, ids: list[str]) -> set[str]: ...
    def cancel(self, ids: list[str]) -> None: ...


@dataclass
class StageView:
    """What is known of a stage right now."""

    stage: Stage
    state: State
    missing: list[int]
    ids: list[str]


class Driver:
    """One launcher's hold on one run."""

    def __init__(self, run: RunDir, plan: Plan, backend: Backend) -> None:
        self._run = run
        self._plan = plan
        self._backend = backend
        self._ledger = run.ledger
        self._ids: dict[str, list[str]] = {}
        self._tried: set[str] = set()
        self._gone: dict[str, int] = {}

    def adopt(self) -> None:
        """Take over what an earlier launcher submitted and what still lives."""
        for stage in self._plan.stages:
            attempt = self._ledger.current_attempt(stage.name)
            if not attempt or not self._missing(stage):
                continue
            event = self._ledger.read(f"submitted.{stage.name}.a{attempt}")
            ids = event["ids"] if event else self._backend.find(stage.name, attempt)
            if self._backend.alive(ids):
                self._ids[stage.name] = ids
                self._tried.add(stage.name)

    def look(self) -> list[StageView]:
        """The state of every stage, one question to the scheduler for all of them."""
        alive = self._backend.alive([i for ids in self._ids.values() for i in ids])
        return [self._view(stage, alive) for stage in self._plan.stages]

    def _view(self, stage: Stage, alive: set[str]) -> StageView:
        missing = self._missing(stage)
        ids = [i for i in self._ids.get(stage.name, []) if i in alive]
        state: State = "waiting"
        if not missing:
            state = "done"
        elif ids:
            state = "active"
            self._gone[stage.name] = 0
        elif stage.name in self._tried:
            # Markers may reach a shared file system a moment after the job has left the queue.
            self._gone[stage.name] = self._gone.get(stage.name, 0) + 1
            state = "failed" if self._gone[stage.name] >= 3 else "active"
        return StageView(stage, state, missing, ids)

    def _missing(self, stage: Stage) -> list[int]:
        return [i for i in range(stage.array) if not self._ledger.done(stage.name, i, stage.nodes)]

    def submit_ready(self, views: list[StageView]) -> None:
        """Submit every waiting stage whose turn it is."""
        by_name = {view.stage.name: view for view in views}
        for view in views:
            if view.state == "waiting" and self._may_start(view.stage, by_name):
                parents = [p for p in view.stage.needs if by_name[p].state == "active"]
                after = [i for parent in parents for i in self._ids.get(parent, [])]
                view.ids = self._submit(view, after)
                view.state = "active"

    def _may_start(self, stage: Stage, views: dict[str, StageView]) -> bool:
        states = [views[parent].state for parent in stage.needs]
        if self._backend.submits_ahead:
            return all(state in ("done", "active") for state in states)
        if stage.needs_ended:
            return all(state in ("done", "failed") for state in states)
        return all(state == "done" for state in states)

    def _submit(self, view: StageView, after: list[str]) -> list[str]:
        name = view.stage.name
        attempt = self._ledger.current_attempt(name) + 1
        if not self._ledger.publish(f"claim.{name}.a{attempt}", indices=view.missing):
            raise RefusedError(
                "RDTL-U012",
                f"another rdtl submits stage {name} of this run right now",
                where=str(self._run.root),
                why="the stage would run twice",
                fix="run the same command again when the other one is done",
            )
        ids = self._backend.submit(self._plan, view.stage, attempt, view.missing, after)
        self._ledger.publish(f"submitted.{name}.a{attempt}", ids=ids)
        self._ids[name] = ids
        self._tried.add(name)
        return ids

    def failure(self, views: list[StageView]) -> RdtlError | None:
        """The first stage that failed, as the error its job left or with the end of its log."""
        for view in views:
            if view.state == "failed":
                return self._explain(view)
        return None

    def _explain(self, view: StageView) -> RdtlError:
        name, index = view.stage.name, view.missing[0]
        attempt = self._ledger.current_attempt(name)
        event = self._ledger.failure(name, index, attempt) or {}
        if event.get("error"):
            return errors.from_dict(event["error"])
        if event.get("exit_code") in (errors.EXIT_REQUEUE, errors.EXIT_SAVED):
            return RdtlError(
                "RDTL-S036",
                f"stage {name} was ended from outside, task {index} of {view.stage.array}",
                why="it was cancelled, or its time was over and it may not be started again",
                fix="nothing is lost: run the same command again, and it continues",
            )
        log = self._run.log(name, attempt, index, 0)
        tail = log.read_text(errors="replace").strip().splitlines()[-8:] if log.exists() else []
        how = f"exit code {event['exit_code']}" if "exit_code" in event else "no trace of its end"
        return RdtlError(
            "RDTL-S033",
            f"stage {name} failed ({how}), task {index} of {view.stage.array}",
            where=f"{log}" + "".join(f"\n          | {line}" for line in tail),
            why="later stages need what it makes; what is finished is kept",
            fix="correct the cause and run the same command again: it continues from here",
        )

    def cancel(self) -> None:
        """End everything that this run still has alive."""
        self._backend.cancel([i for ids in self._ids.values() for i in ids])


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
            if failure and not any(view.state == "active" for view in views):
                raise failure
            time.sleep(backend.poll_s)
    except KeyboardInterrupt:
        if not backend.submits_ahead:
            driver.cancel()
        raise
