"""The runner: starts the steps of a graph as soon as they may, until nothing is left to do.

A thread for each step that is being proven or runs; this one alone decides. Of the steps
that are ready, the one with the longest expected way to the end gets its tokens first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import signal
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from launcher.core import dag, dag_failures, dag_processes, dag_schedule, dag_steps, files
from launcher.core.dag import Step
from launcher.core.dag_files import BoxRun, Recorder
from launcher.core.dag_steps import Box, Look, Result
from launcher.core.errors import EXIT_FAILED, EXIT_OK, EXIT_REQUEUE, EXIT_TERMINATED, RefusedError

GOOD = ("done", "skipped")
ENDED = (*GOOD, "failed", "blocked")
ACTIVE = ("proving", "running")
LOOK_S = 1.0
"""While a step waits for tokens, expectations are looked at this often."""


def run(
    run: BoxRun,
    secrets: Mapping[str, str],
    ready: Callable[[], object] = int,
    brought: dag.Graph | None = None,
) -> int:
    """Run a run directory's graph to its end; 0, 1 (a step failed), 143 (stopped), 85 (by USR2).

    ``ready`` is called once this is the only runner there. A graph that is ``brought`` becomes
    that of the run directory, but never under another runner. RefusedError RDTL-B050 when one
    is at work already, RDTL-B052 for missing secrets.
    """
    with run.lock.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _taken(run) from error
        graph = brought or run.load()
        _check_secrets(graph, secrets)
        if brought:
            files.write_json(run.graph, brought.to_dict())
        run.rc.unlink(missing_ok=True)
        ended = end_strays(run, graph)
        token = uuid.uuid4().hex
        process = dag_processes.of(os.getpid())
        files.write_json(run.runner, {"process": vars(process), "token": token})
        ready()
        return Runner(run, graph, secrets, token).go(ended)


def _taken(run: BoxRun) -> RefusedError:
    return RefusedError(
        "RDTL-B050",
        "a runner is at work in this run directory already",
        where=str(run.root),
        why="two would run the same steps at once",
        fix="follow it (rdtl recipe attach), or stop it first (rdtl recipe stop)",
    )


def _check_secrets(graph: dag.Graph, secrets: Mapping[str, str]) -> None:
    for step in graph.steps:
        if missing := sorted(set(step.secrets).difference(secrets)):
            raise RefusedError(
                "RDTL-B052",
                f"step {step.name} needs secrets that were not given: {', '.join(missing)}",
                where=graph.name,
                why="it would fail after everything before it was paid for",
                fix="give them as the recipe's `secrets` says",
            )


def end_strays(run: BoxRun, graph: dag.Graph) -> int:
    """End the steps of a runner that was killed; returns how many processes that were."""
    try:
        token = str(files.read_json(run.runner)["token"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    states = [run.state(step.name) for step in graph.steps]
    leaders = [dag_processes.from_dict(state.get("process")) for state in states]
    return dag_processes.end_strays(token, [leader for leader in leaders if leader])


class Runner:
    """State of one run; ``go`` is all there is to call."""

    def __init__(
        self, run: BoxRun, graph: dag.Graph, secrets: Mapping[str, str], token: str
    ) -> None:
        self.graph = graph
        self.stopping = threading.Event()
        self.requeue = False
        root = Path(graph.working_directory).expanduser()
        self.recorder = Recorder(run)
        self.box = Box(run, root, self.recorder, secrets, token, self.stopping)
        self.ways = graph.ways()
        self.began: dict[str, float] = {}
        self.order = graph.order()
        self.steps = sorted(self.order, key=lambda step: -self.ways[step.name])
        self.status = {step.name: "waiting" for step in graph.steps}
        self.free = dict(graph.tokens)
        self.fingerprints: dict[str, str] = {}
        self.inbox: queue.SimpleQueue[tuple[Step, Any] | None] = queue.SimpleQueue()

    def go(self, strays: int = 0) -> int:
        """Run to the end."""
        began = time.monotonic()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, self._stop)
        self.recorder.tell(
            "start", name=self.graph.name, steps=len(self.steps), pid=os.getpid(), strays=strays
        )
        self._advance()
        while any(status in ACTIVE for status in self.status.values()):
            with contextlib.suppress(queue.Empty):
                message = self.inbox.get(
                    timeout=LOOK_S if "ready" in self.status.values() else None
                )
                if message:
                    self._take(*message)
            self._advance()
        rc = self._rc()
        counts = {name: list(self.status.values()).count(name) for name in ENDED}
        self.recorder.tell("end", rc=rc, seconds=round(time.monotonic() - began, 3), **counts)
        self.recorder.close(rc)
        return rc

    def _stop(self, number: int, _: object) -> None:
        self.requeue = number == signal.SIGUSR2  # a scheduler's warning: its time is nearly over
        self.stopping.set()
        self.inbox.put(None)

    def _rc(self) -> int:
        if all(status in GOOD for status in self.status.values()):
            return EXIT_OK
        if not self.stopping.is_set():
            return EXIT_FAILED
        return EXIT_REQUEUE if self.requeue else EXIT_TERMINATED

    def _advance(self) -> None:
        """Start what may start now. In the order of needs: one that is skipped lets others go."""
        if self.stopping.is_set():
            return
        for step in self.order:
            if self.status[step.name] == "waiting":
                self._consider(step)
        for step in self.steps:
            if self.status[step.name] == "ready" and self._affordable(step):
                self._spend(step, -1)
                self.began[step.name] = time.monotonic()
                self._begin(step, "running", self._carry_out)

    def _consider(self, step: Step) -> None:
        needs = [self.status[need] for need in step.needs]
        bad = [need for need in step.needs if self.status[need] in ("failed", "blocked")]
        if bad and not step.after_failure:
            self.status[step.name] = "blocked"
            self.recorder.tell("blocked", step=step.name, by=bad)
        elif all(status in ENDED for status in needs):
            found = self._look(step)
            if found.skip and step.verify.cheap:
                self._begin(step, "proving", lambda s: dag_steps.look_closer(self.box, s, found))
            else:
                self._take(step, found)

    def _affordable(self, step: Step) -> bool:
        """Whether there are tokens for a step, and no longer way needs them in a moment."""
        if any(self.free[name] < count for name, count in step.resources.items()):
            return False
        now = time.monotonic()
        running = [other for other in self.order if self.status[other.name] == "running"]
        waiting = [other for other in self.order if self.status[other.name] == "waiting"]
        open_ = [other for other in self.order if self.status[other.name] not in ENDED]
        elapsed = {other.name: now - self.began[other.name] for other in running}
        ends = dag_schedule.remaining(open_, elapsed)
        return not dag_schedule.waits(step, waiting, running, self.ways, ends, self.free)

    def _spend(self, step: Step, sign: int) -> None:
        for name, count in step.resources.items():
            self.free[name] += sign * count

    def _begin(self, step: Step, status: str, work: Callable[[Step], Any]) -> None:
        self.status[step.name] = status

        def target() -> None:
            try:
                self.inbox.put((step, work(step)))
            except Exception as error:  # ours: no step may be waited for in vain because of it
                self.inbox.put((step, error))

        threading.Thread(target=target, name=step.name, daemon=True).start()

    def _look(self, step: Step) -> Look:
        upstream = [
            self.fingerprints.get(need, "") + ("" if self.status[need] in GOOD else " failed")
            for need in step.needs
        ]
        return dag_steps.look(self.box, step, upstream)

    def _carry_out(self, step: Step) -> Result:
        return dag_steps.carry_out(self.box, step, self.fingerprints[step.name])

    def _take(self, step: Step, said: Look | Result | Exception) -> None:
        """Note what a thread found out."""
        if self.status[step.name] == "running":
            self._spend(step, +1)
        if isinstance(said, Exception):
            failure = dag_failures.broken(said)
            dag_steps.tell_failure(self.box, step, failure, EXIT_FAILED, 0.0)
            said = Result(failure, EXIT_FAILED)
        if isinstance(said, Result):
            self.status[step.name] = "failed" if said.failure else "done"
            return
        self.fingerprints[step.name] = said.fingerprint
        if said.skip:
            self.status[step.name] = "skipped"
            self.recorder.tell("step_skip", step=step.name, why=said.why)
        elif said.failure:
            self.status[step.name] = "failed"
            dag_steps.tell_failure(self.box, step, said.failure, EXIT_FAILED, 0.0)
        else:
            self.status[step.name] = "ready"
