"""The run directory: one home for every path, and the ledger of what happened.

::

    RUN/run.yaml            resolved configuration, as a person would write it
    RUN/plan.json           the plan: stages, argv, resources, dependencies, config
    RUN/lock.json           code digest, versions
    RUN/site.yaml           the site as it was configured when the run was driven last
    RUN/code/               snapshot: the only source of launcher, jobs, rdt in a job
    RUN/events/NAME.json    the ledger: one small file per event, published once
    RUN/progress/           last progress of each stage task (may be overwritten)
    RUN/logs/STAGE/attempt_N/INDEX.nNODE.log
    RUN/data/ checkpoints/ policy/ records/ videos/ report/
    RUN/proven/             what was seen of simulators that are right, for each kind of node
    RUN/uploads/            whose results lie at upload.uri, what was proven there, what is behind

Event names: ``claim.STAGE.aN`` (indices, before anything is submitted), ``sending.…``
and ``submitted.STAGE.aN`` (scheduler ids; see :mod:`launcher.arrays`),
``started.STAGE.iINDEX.aN.rR`` (by node 0) and ``finished.STAGE.iINDEX.nNODE.aN.rR``
(exit code and, for a failure, the error); ``saved.STAGE.iINDEX.aN.rR`` where a program that is
none of ours ended by saying so. N counts what the launcher submitted, R how
often the scheduler started that submission again (requeue). A stage index is done when
some round has exit code 0 on all its nodes.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.errors import EXIT_LOST


@dataclass(frozen=True)
class RunDir:
    """Paths inside one run directory (absolute)."""

    root: Path

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def config(self) -> Path:
        return self.root / "run.yaml"

    @property
    def lock(self) -> Path:
        return self.root / "lock.json"

    @property
    def site(self) -> Path:
        return self.root / "site.yaml"

    @property
    def creating(self) -> Path:
        """Held (flock) while the run is made; it is there from the first moment on."""
        return self.root / "creating.lock"

    @property
    def code(self) -> Path:
        return self.root / "code"

    @property
    def work(self) -> Path:
        """The copy of the working tree in which the command of ``rdtl run`` runs."""
        return self.root / "work"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def plots(self) -> Path:
        return self.root / "plots"

    @property
    def policy(self) -> Path:
        return self.root / "policy"

    @property
    def records(self) -> Path:
        return self.root / "records"

    @property
    def proven(self) -> Path:
        """Of each kind of node whose simulator was looked at and is right: what was seen."""
        return self.root / "proven"

    @property
    def cells(self) -> Path:
        """Of a sweep: a directory laid out like a run for each combination."""
        return self.root / "cells"

    @property
    def videos(self) -> Path:
        return self.root / "videos"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def uploads(self) -> Path:
        """What is known of results that leave while the run goes on."""
        return self.root / "uploads"

    @property
    def upload_state(self) -> Path:
        """What the last round of uploads left undone, and why."""
        return self.uploads / "state.json"

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.root / "events")

    def log(self, stage: str, attempt: int, index: int, node: int) -> Path:
        """Log file of one node of one stage task."""
        return self.root / "logs" / stage / f"attempt_{attempt}" / f"{index}.n{node}.log"

    def progress(self, stage: str, index: int) -> Path:
        """Progress file of one stage task."""
        return self.root / "progress" / f"{stage}.{index}.json"

    def error(self, stage: str, attempt: int, index: int, node: int, restart: int) -> Path:
        """Where a job leaves its structured error for the node task of this round."""
        return self.log(stage, attempt, index, node).with_suffix(f".r{restart}.error.json")


@dataclass(frozen=True)
class Ledger:
    """Events of a run: names are unique, contents never change."""

    folder: Path

    def publish(self, name: str, **data: Any) -> bool:
        """Record an event once; False when that name is already recorded."""
        return files.publish_once(self.folder / f"{name}.json", {**data, "at": time.time()})

    def read(self, name: str) -> dict[str, Any] | None:
        """The event's data, or None."""
        try:
            data: dict[str, Any] = files.read_json(self.folder / f"{name}.json")
        except FileNotFoundError:
            return None
        return data

    def names(self, prefix: str = "") -> list[str]:
        """Names of the recorded events that start with ``prefix``, sorted."""
        return sorted(path.stem for path in self.folder.glob(f"{prefix}*.json"))

    def attempts(self, stage: str) -> list[int]:
        """Attempt numbers claimed for ``stage``, ascending."""
        return sorted(int(name.rsplit(".a", 1)[1]) for name in self.names(f"claim.{stage}.a"))

    def current_attempt(self, stage: str) -> int:
        """Newest claimed attempt, 0 when there is none."""
        return max(self.attempts(stage), default=0)

    def newest_attempt(self, stage: str, index: int) -> int:
        """Newest attempt that claimed this task, 0 when none did: older ones are fenced off.

        Others of the stage may still run in an older attempt (resubmit).
        """
        for number in reversed(self.attempts(stage)):
            claim = self.read(f"claim.{stage}.a{number}")
            if claim and index in claim["indices"]:
                return number
        return 0

    def current_restart(self, stage: str, index: int, attempt: int) -> int:
        """How often the scheduler has started this task of the attempt again (0: never)."""
        names = self.names(f"started.{stage}.i{index}.a{attempt}.r")
        return max((int(name.rsplit(".r", 1)[1]) for name in names), default=0)

    def finished(self, stage: str, index: int, attempt: int) -> dict[int, dict[str, Any]]:
        """Event of each node that ended, by node rank, of the newest round of one attempt."""
        found: dict[int, dict[str, Any]] = {}
        restart = self.current_restart(stage, index, attempt)
        for name in self.names(f"finished.{stage}.i{index}.n"):
            node, _, round_ = name.rsplit(".n", 1)[1].partition(".a")
            if round_ == f"{attempt}.r{restart}":
                found[int(node)] = self.read(name) or {"exit_code": 1, "at": 0.0}
        return found

    def exit_codes(self, stage: str, index: int, attempt: int) -> dict[int, int]:
        """Exit code by node rank of the newest round of one attempt."""
        events = self.finished(stage, index, attempt)
        return {node: event["exit_code"] for node, event in events.items()}

    def failure(self, stage: str, index: int, attempt: int) -> dict[str, Any] | None:
        """The event of the node that failed first, or None: the others fail because it did.

        One that can say why comes before all others, and one that lost these after all: the
        death of a host is noticed by its peers before it is known.
        """
        events = self.finished(stage, index, attempt).values()
        failed = [event for event in events if event["exit_code"] != 0]
        return min(failed, key=told, default=None)


def told(event: dict[str, Any]) -> tuple[bool, bool, float]:
    """Order of the failures of nodes: first what says most about the cause."""
    return event["exit_code"] == EXIT_LOST, not event.get("error"), event["at"]


def read_progress(run: RunDir, stage: str) -> list[dict[str, Any]]:
    """Last progress of every task of ``stage`` (each written whole)."""
    paths = (run.root / "progress").glob(f"{stage}.*.json")
    found = []
    for path in sorted(paths):
        try:
            found.append(files.read_json(path))
        except (FileNotFoundError, json.JSONDecodeError):
            continue  # replaced while we looked; the next look sees it
    return found
