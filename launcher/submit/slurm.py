"""Slurm: parts of stages as (array) jobs, chained by dependencies.

submitit's executor sends the script (:mod:`launcher.submit.adapter`); Slurm's own
words and the run's ledger say how it went. Nothing here waits: what cannot be
known or done now returns None, and :mod:`launcher.drive` comes back to it.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from launcher.arrays import Part, spans
from launcher.core.errors import RemoteError
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.sites import Site, require_scheduler
from launcher.submit import fit, limits, parse
from launcher.submit.clients import (
    INHERITED,
    KEPT,
    SBATCH_TIMEOUT_S,
    Clients,
    Reply,
    clean_environment,
    gave_up,
)
from launcher.submit.queue import Queue
from launcher.submit.script import Request, render

__all__ = ["INHERITED", "KEPT", "SlurmBackend", "clean_environment", "job_name", "request"]

FULL = re.compile(r"MaxSubmit|GrpSubmit|job submit limit|MaxJobCount|maximum number of jobs")
"""sbatch refuses because too many tasks are queued now; later it may take them."""
FULL_PAUSE_S = 60.0
LAG_S, LAGS = 5.0, 6
"""Slurm counts tasks that have just ended for a moment: an empty queue may be full this often."""
SBATCH_TRIES = 30
"""After so many without an answer the launcher gives up; each is looked up before the next."""
CODES = {
    "Invalid job array specification": "RDTL-S002",
    "time limit": "RDTL-S021",
    "node configuration is not available": "RDTL-S021",
    "QOS policy": "RDTL-S021",
}
"""What sbatch's own words mean, where there is a better code than RDTL-S031."""


def job_name(run: RunDir, stage: str, tag: str) -> str:
    """Deterministic name of one part: the same run, stage, attempt and part give the same."""
    return f"{job_prefix(run)}{stage}-{tag}"


def job_prefix(run: RunDir) -> str:
    """Beginning of the names of all jobs of a run."""
    return f"rdtl-{hashlib.sha256(str(run.root).encode()).hexdigest()[:8]}-"


def within(stage: Stage, site: Site) -> Stage:
    """``stage`` with the time that the site allows; that of a command is its user's word."""
    if site.max_minutes is None or not stage.own_code:
        return stage
    return replace(stage, minutes=min(stage.minutes, site.max_minutes))


def request(run: RunDir, site: Site, stage: Stage, part: Part, after: list[str]) -> Request:
    """What the script of a part says: a pure function of its arguments."""
    folder = run.root / "slurm" / stage.name / f"attempt_{part.attempt}"
    number = f", part {part.number + 1} of {part.of}" if part.of > 1 else ""
    at_once = site.tasks_at_once
    return Request(
        title=f"Stage {stage.name} of run {run.root.name}, attempt {part.attempt}{number}: "
        f"{'tasks' if stage.array > 1 else 'task'} {spans(part.indices)} of {stage.array}.",
        job_name=job_name(run, stage.name, part.tag),
        folder=folder if part.of == 1 else folder / f"part_{part.number}",
        code=run.code,
        python=sys.executable,
        nodes=stage.nodes,
        cpus=stage.cpus,
        memory_mb=stage.memory_mb,
        minutes=within(stage, site).minutes,
        gpus_per_node=stage.gpus_per_node,
        gpu_type=site.gpu_type,
        partition=site.partition,
        account=site.account,
        qos=site.qos,
        # An array of one would only look odd in squeue; a plain job is what Slurm shows best.
        array=len(part.indices) if len(part.indices) > 1 else 0,
        at_once=max(1, at_once // part.of) if at_once else None,
        after=tuple(after),
        after_any=stage.needs_ended,
    )


class SlurmBackend:
    """Submits stages of one run to the cluster that the site names."""

    poll_s = 2.0
    submits_ahead = True

    def __init__(
        self,
        run: RunDir,
        site: Site,
        say: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        require_scheduler("slurm")
        self._run = run
        self._site = site
        self._clock = clock
        self._clients = Clients(clean_environment(os.environ, site.environment), say, clock)
        self.queue = Queue(self._clients, job_prefix(run), clock)
        self._limits: limits.Limits | None = None
        self._full_until = float("-inf")
        self._in_vain = 0
        self._full_but_empty = 0
        self._asked: dict[str, float] = {}

    def limits(self) -> limits.Limits | None:
        """The cluster's limits, asked once; None while it does not answer."""
        if self._limits is None:
            self._limits = limits.read(self._clients, self._site)
        return self._limits

    def check(self, plan: Plan) -> None:
        """RefusedError RDTL-S021 when the cluster can never run a stage of ``plan``.

        UsageError RDTL-U024 when a path cannot stand in a script. A cluster that does not
        answer refuses nothing.
        """
        for stage in plan.stages:
            self.script(stage, Part(stage.name, 1, tuple(range(stage.array))), [])
        asked = [
            self._clients.ask(["scontrol", "show", "partition"]),
            self._clients.ask(["sinfo", "--exact", "--noheader", parse.NODES_FORMAT]),
        ]
        if None not in asked:
            cluster = fit.Cluster(parse.partitions(asked[0] or ""), parse.nodes(asked[1] or ""))
            for stage in plan.stages:
                fit.check(within(stage, self._site), self._site.partitions, cluster)

    def part_size(self, stage: Stage) -> int | None:
        """Tasks that one part of ``stage`` may have; 0 while it cannot be known."""
        if stage.array == 1:
            return None
        told = self.limits()
        if told is None or told.queued_tasks is None or 2 * stage.array <= told.queued_tasks:
            return told.part_size if told else 0
        # Other jobs of the user may stay for days: a part should fit beside them.
        queued = self.queue.tasks()
        if queued is None:
            return 0
        free = max(told.queued_tasks - queued, told.queued_tasks // 2, 1)
        return min(free, told.array_tasks or free)

    def script(self, stage: Stage, part: Part, after: list[str]) -> str:
        """The exact sbatch script of a part; for a pipeline the parents' ids are not known yet."""
        return render(request(self._run, self._site, stage, part, after))

    def submit(self, stage: Stage, part: Part, after: list[str]) -> list[str] | None:
        """sbatch one part; its job id; [] when the queue is full; None when nobody answered.

        After None the part must be looked up before it is sent again. Raises
        RemoteError with sbatch's own words when Slurm refuses.
        """
        from launcher.submit.adapter import NotSentError, PartExecutor

        try:
            executor = PartExecutor(
                request(self._run, self._site, stage, part, after), self._clients
            )
            job = executor.send(self._run, stage.name, part.attempt, part.indices)
        except NotSentError as error:
            return self._not_sent(stage, error.reply)
        self._clients.answered()
        self._in_vain = self._full_but_empty = 0
        self.queue.sent(job, len(part.indices))
        return [job]

    def _not_sent(self, stage: Stage, reply: Reply) -> list[str] | None:
        if reply.silent:
            self._clients.unanswered("sbatch", reply)
            self._in_vain += 1
            if self._in_vain == SBATCH_TRIES:  # squeue may answer all the while
                raise gave_up(f"sbatch has not answered {SBATCH_TRIES} times in a row", reply)
            return None
        if FULL.search(reply.err) and (pause := self._until_room()):
            self._full_until = self._clock() + pause
            return []
        code = next((code for text, code in CODES.items() if text in reply.words), "RDTL-S031")
        raise RemoteError(
            code,
            f"sbatch refused stage {stage.name}",
            where=reply.words,
            why="nothing of it was submitted; what was submitted before goes on",
            fix="change the request or the site file (max_minutes bounds the time); "
            "rdtl ... --dry-run prints the script",
        )

    def _until_room(self) -> float:
        """Seconds to wait for room in a full queue; 0 when nothing is in it that could end."""
        if self.queue.tasks():
            self._full_but_empty = 0
            return FULL_PAUSE_S
        self._full_but_empty += 1
        return LAG_S if self._full_but_empty < LAGS else 0.0

    def room(self, tasks: int) -> bool:
        """Whether the cluster takes ``tasks`` more tasks of this user now."""
        if self._clients.resting or self._clock() < self._full_until:
            return False
        most = self._limits.queued_tasks if self._limits else None
        if most is None:
            return True
        queued = self.queue.tasks()
        return queued is not None and queued + tasks <= most

    def find(self, part: Part, began: float) -> list[str] | None:
        """Ids of a part that was perhaps sent at ``began`` (seconds since 1970), by its name.

        None while it cannot be known: nobody answers, or the request may still be on its way.
        """
        told = self.limits()
        if told is None:
            return None
        name = job_name(self._run, part.stage, part.tag)
        found = self.queue.find(name, began, told.accounting, told.remembers_s)
        # sbatch may have hung until just now, and its request be on its way since.
        first = self._asked.setdefault(f"{name} {began}", self._clock())
        recent = time.time() - began < SBATCH_TIMEOUT_S + told.settles_s
        if found == [] and recent and self._clock() - first < told.settles_s:
            return None
        return found

    def alive(self, ids: list[str]) -> set[str] | None:
        """Those of ``ids`` that wait or run; None when it cannot be known now."""
        found = self.queue.alive(ids)
        self.cancel(sorted(self.queue.hopeless(ids)))
        return found

    def ended(self, ids: list[str], since: float) -> str:
        """How Slurm's accounting says that jobs ended, "" when it cannot say."""
        return self.queue.ended(ids, since) if ids else ""

    def wait_for(self, ids: list[str], parents: list[str]) -> bool:
        """Change what jobs that have not started wait for; False when Slurm refuses."""
        order = f"Dependency=afterany:{':'.join(parents)}"
        update = ["scontrol", "update", f"JobId={','.join(ids)}", order]
        return self._clients.run(update).code == 0

    def cancel(self, ids: list[str]) -> None:
        """scancel all ``ids`` in one call."""
        if ids:
            self._clients.run(["scancel", *ids])
