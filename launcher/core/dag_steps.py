"""One step from its first look to its end: skip, tries, proofs, remedies, state on disk."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.core import dag, dag_failures, dag_processes, dag_remedies
from launcher.core.dag import Step
from launcher.core.dag_execute import Ended, Log, execute
from launcher.core.dag_failures import STOPPED
from launcher.core.dag_files import BoxRun, Recorder, Silent
from launcher.core.dag_remedies import Cure
from launcher.core.redaction import Redaction
from launcher.core.signatures import Failure, Watch

NEARLY_FULL = 1 << 20


@dataclass(frozen=True)
class Box:
    """What all steps of one runner share."""

    run: BoxRun
    root: Path
    """The graph's working directory."""
    recorder: Recorder | Silent
    secrets: Mapping[str, str]
    token: str
    stopping: threading.Event

    def environment(self, step: Step, changed: Mapping[str, str]) -> dict[str, str]:
        """Variables of a step's processes; nothing of it is written anywhere."""
        return {
            "PYTHONUNBUFFERED": "1",
            **os.environ,
            **step.env,
            **changed,
            **{name: self.secrets[name] for name in step.secrets if name in self.secrets},
            "RDTL_RUN": str(self.run.root),
            "RDTL_STEP": step.name,
            "RDTL_PYTHON": sys.executable,
            "RDTL_RUNNER_PYZ": str(Path(sys.argv[0]).resolve()),
            dag_processes.TOKEN: self.token,
        }


@dataclass(frozen=True)
class Look:
    """Whether a step may be skipped and ``why`` (not); its fingerprint, or why it fails."""

    fingerprint: str
    why: str
    skip: bool = False
    failure: Failure | None = None


@dataclass(frozen=True)
class Result:
    """How a step ended."""

    failure: Failure | None
    rc: int = 0


def look(box: Box, step: Step, upstream: list[str]) -> Look:
    """Whether a step has to run, as far as that is told without a process."""
    try:
        fingerprint = dag.fingerprint(step, upstream, box.root)
    except OSError as error:
        return Look("", "", failure=dag_failures.missing("input", [error.filename], error))
    state = box.run.state(step.name)
    if why := _stale(box, step, state, fingerprint):
        return Look(fingerprint, why)
    return Look(fingerprint, "it was done and its outputs are there", skip=True)


def look_closer(box: Box, step: Step, found: Look) -> Look:
    """Let the cheap proof have the last word on a step that could be skipped."""
    failure = prove(box, step, step.verify.cheap)
    return Look(found.fingerprint, failure.reason) if failure else found


def _stale(box: Box, step: Step, state: Mapping[str, Any], fingerprint: str) -> str:
    """Why a step must run; empty if it need not."""
    if step.always:
        return "it always runs"
    status = state.get("status")
    if status != "done":
        return "it never ran" if status is None else f"it did not end well ({status})"
    if state.get("fingerprint") != fingerprint:
        return "its command, its inputs or a step before it changed"
    absent = _absent(box, step)
    return f"output {', '.join(absent)} is not there" if absent else ""


def _absent(box: Box, step: Step) -> list[str]:
    return [name for name in step.outputs if not (box.root / name).exists()]


def prove(box: Box, step: Step, command: dag.Command | None) -> Failure | None:
    """Run a proof; None when it passes or there is none."""
    if command is None:
        return None
    log = Log(box.run.step(step.name) / "check.log", Redaction(box.secrets.values()))
    deadline = time.monotonic() + step.verify.timeout_s

    def late(now: float) -> Failure | None:
        if box.stopping.is_set():
            return STOPPED
        return dag_failures.too_long(step.verify.timeout_s, "its proof") if now > deadline else None

    environment = box.environment(step, {})
    ended = execute(command, environment, box.root, log, _unseen, late, _unseen)
    log.close(_unseen)
    if ended.rc == 0 and ended.failure is None:
        return None
    box.recorder.tell("check_failed", step=step.name, rc=ended.rc, last=log.last)
    last = log.last[-1] if log.last else "no word"
    told = ended.failure or dag_failures.said(log.last)
    return told or dag_failures.unproven(step.name, ended.rc, last)


def _unseen(_: object) -> None:
    """Nobody looks at this."""


def carry_out(box: Box, step: Step, fingerprint: str) -> Result:
    """Try a step until it succeeds, cannot be helped or has no tries left; its state is saved."""
    state = box.run.state(step.name)
    same = state.get("fingerprint") == fingerprint
    changed: dict[str, str] = dict(state.get("changed", {})) if same else {}
    began = time.monotonic()
    for attempt in range(1, step.retries + 2):
        try:
            ended = _attempt(box, step, changed, attempt, fingerprint)
        except OSError as error:
            ended = Ended(1, dag_failures.of_system(error))
        cure = _cure(step, ended.failure, changed) if attempt <= step.retries else None
        if ended.failure is None or cure is None:
            break
        _tell_next_try(box, step, attempt, ended.failure, cure)
        changed = {**changed, **cure.changed}
        box.stopping.wait(step.retry_wait_s)
        cure.wait(box.stopping)
        if box.stopping.is_set():
            ended = Ended(ended.rc, STOPPED)
            break
    return _finish(box, step, ended, fingerprint, changed, round(time.monotonic() - began, 3))


def _cure(step: Step, failure: Failure | None, changed: Mapping[str, str]) -> Cure | None:
    return dag_remedies.cure(step, failure, {**step.env, **changed}) if failure else None


def _tell_next_try(box: Box, step: Step, attempt: int, failure: Failure, cure: Cure) -> None:
    reason, wait = f"{failure.code} {failure.reason}", step.retry_wait_s
    box.recorder.tell("retry", step=step.name, attempt=attempt, reason=reason, wait_s=wait)
    if cure.name != "retry":
        told = {"remedy": cure.name, "code": failure.code, "did": cure.did}
        box.recorder.tell("remedy", step=step.name, **told)


def _attempt(
    box: Box, step: Step, changed: Mapping[str, str], attempt: int, fingerprint: str
) -> Ended:
    """One try: run, then prove what it made."""
    log = Log(box.run.step(step.name) / "log", Redaction(box.secrets.values()))
    began = time.monotonic()
    watch = Watch(step, began)

    def take(line: str) -> None:
        for event, fields in watch.line(line, time.monotonic()):
            box.recorder.tell(event, step=step.name, **fields)

    def look(now: float) -> Failure | None:
        if box.stopping.is_set():
            return STOPPED
        if step.timeout_s is not None and now - began > step.timeout_s:
            return watch.failure or dag_failures.too_long(step.timeout_s, "it")
        return watch.failure or watch.late(now)

    def started(pid: int) -> None:
        process = vars(dag_processes.of(pid))
        state = {"process": process, "fingerprint": fingerprint, "changed": dict(changed)}
        box.recorder.note(step.name, status="running", attempt=attempt, **state)
        box.recorder.tell("step_begin", step=step.name, attempt=attempt, pid=pid)

    environment = box.environment(step, changed)
    box.root.mkdir(parents=True, exist_ok=True)
    ended = execute(step.command, environment, box.root, log, take, look, started)
    log.close(take)
    for event, fields in watch.rest():
        box.recorder.tell(event, step=step.name, **fields)
    return Ended(ended.rc, _judged(box, step, ended, watch, log))


def _judged(box: Box, step: Step, ended: Ended, watch: Watch, log: Log) -> Failure | None:
    """Why this try failed, or None: a good exit code is not enough."""
    if ended.failure or watch.failure:
        return ended.failure or watch.failure
    if ended.rc != 0:
        return _explained(box, ended.rc, watch, log)
    if absent := _absent(box, step):
        return dag_failures.missing("output", absent)
    return prove(box, step, step.verify.cheap) or prove(box, step, step.verify.deep)


def _explained(box: Box, rc: int, watch: Watch, log: Log) -> Failure:
    last = log.last[-1] if log.last else "it said nothing"
    if told := dag_failures.said(log.last) or watch.explanation:
        return told
    if log.full or _nearly_full(box.root) or _nearly_full(box.run.root):
        return dag_failures.disk_full(last)
    return dag_failures.unknown(rc, last)


def _nearly_full(path: Path) -> bool:
    try:
        room = os.statvfs(path)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < NEARLY_FULL


def _finish(
    box: Box, step: Step, ended: Ended, fingerprint: str, changed: Mapping[str, str], seconds: float
) -> Result:
    """Write the end down; what cannot be written down is not done."""
    failure = ended.failure
    status = "done" if failure is None else "stopped" if failure is STOPPED else "failed"
    facts = {"fingerprint": fingerprint, "changed": dict(changed), "rc": ended.rc}
    try:
        box.recorder.save(step.name, status=status, seconds=seconds, at=time.time(), **facts)
    except OSError as error:
        failure = failure or dag_failures.of_system(error)
    if failure is None:
        box.recorder.tell("step_done", step=step.name, seconds=seconds)
        return Result(None)
    tell_failure(box, step, failure, ended.rc, seconds)
    return Result(failure, ended.rc)


def tell_failure(box: Box, step: Step, failure: Failure, rc: int, seconds: float) -> None:
    """The event of a step's failure, with the end of its log."""
    try:
        lines = (box.run.step(step.name) / "log").read_text("utf-8", "replace").splitlines()[-20:]
    except OSError:
        lines = []
    box.recorder.tell(
        "step_fail",
        step=step.name,
        rc=rc,
        reason=failure.reason,
        code=failure.code,
        cause=failure.cause,
        fix=failure.fix,
        seconds=seconds,
        last=lines,
    )
