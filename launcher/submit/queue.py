"""What the scheduler says of our jobs: one squeue for all of them, seldom; then sacct.

A run's own markers come first (:mod:`launcher.drive`); this says only what is
still alive. An answer is kept for two seconds at first and for half a minute
later, for large arrays from the start: a controller serves the whole cluster.
Silence is silence: it never means that a job runs, nor that it is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from launcher.submit import parse
from launcher.submit.clients import Clients

FIRST_LOOK_S = 2.0
KEEP_S = 30.0
GROWTH = 1.5
MANY_TASKS = 100


class Queue:
    """The queue of this user on one cluster, as last seen; our jobs' names begin with `prefix`."""

    def __init__(
        self, clients: Clients, prefix: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clients = clients
        self._prefix = prefix
        self._clock = clock
        self._rows: list[parse.Row] = []
        self._seen_at = float("-inf")
        self._keep = FIRST_LOOK_S
        self._sent: dict[str, tuple[float, int]] = {}
        self._heard: dict[str, float] = {}

    def sent(self, job: str, tasks: int) -> None:
        """sbatch has just accepted ``job``: an older look at the queue does not know it."""
        self._sent[job] = (self._clock(), tasks)
        self._keep = FIRST_LOOK_S

    def alive(self, ids: list[str]) -> set[str] | None:
        """Those of ``ids`` that wait or run under our name; None when it cannot be known now.

        A controller that lost its newest seconds in a crash gives a job id a second
        time: so the name counts too. A job whose dependency can never be satisfied
        counts as ended. A job that another launcher sent after our last look lives
        until a look that is newer.
        """
        if not ids:
            return set()
        for id_ in set(ids) - self._heard.keys():
            self._heard[id_] = self._clock()
            self._keep = FIRST_LOOK_S
        if not self._look():
            return None
        listed = {row.job for row in self._ours() if row.reason != "DependencyNeverSatisfied"}
        return {
            id_
            for id_ in ids
            if id_ in listed or self._is_newer(id_) or self._heard[id_] > self._seen_at
        }

    def hopeless(self, ids: list[str]) -> set[str]:
        """Those of ``ids`` that wait for a job that failed; they would wait for ever."""
        hopeless = {row.job for row in self._ours() if row.reason == "DependencyNeverSatisfied"}
        return hopeless.intersection(ids)

    def _ours(self) -> list[parse.Row]:
        return [row for row in self._rows if row.name.startswith(self._prefix)]

    def tasks(self) -> int | None:
        """How many tasks of this user wait or run, ours and others; None when not known now."""
        if not self._look():
            return None
        newer = [tasks for job, (_, tasks) in self._sent.items() if self._is_newer(job)]
        return sum(row.tasks for row in self._rows) + sum(newer)

    def _is_newer(self, job: str) -> bool:
        return job in self._sent and self._sent[job][0] >= self._seen_at

    def _look(self) -> bool:
        """Have an answer that is young enough; False when there is none."""
        began = self._clock()
        if began - self._seen_at < self._keep:
            return True
        printed = self._clients.ask(["squeue", "--me", "--noheader", parse.QUEUE_FORMAT])
        if printed is None:
            return False
        self._rows = parse.queue(printed)
        self._seen_at = began
        many = sum(row.tasks for row in self._rows) > MANY_TASKS
        self._keep = KEEP_S if many else min(KEEP_S, GROWTH * self._keep)
        return True

    def find(self, name: str, since: float, accounting: bool, memory_s: float) -> list[str] | None:
        """Ids of the job called ``name``, ended ones too; None when it cannot be known now.

        ``since`` (seconds since 1970): when it may have been sent. squeue remembers
        ended jobs for ``memory_s``; what is older only accounting knows.
        """
        command = ["squeue", "--me", "--states=all", "--noheader", parse.QUEUE_FORMAT]
        printed = self._clients.ask([*command, f"--name={name}"])
        if printed is None:
            return None
        found = sorted({row.job for row in parse.queue(printed) if row.name == name})
        if found or time.time() - since < memory_s or not accounting:
            return found
        return self._find_ended(name, since)

    def _find_ended(self, name: str, since: float) -> list[str] | None:
        start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 60))
        what = ["-X", "--parsable2", "--format=JobID,JobName", f"--starttime={start}"]
        printed = self._clients.ask(["sacct", *what, f"--name={name}"])
        if printed is None:
            return None
        rows = parse.table(printed)
        return sorted({row["jobid"].split("_")[0] for row in rows if row["jobname"] == name})

    def ended(self, ids: list[str], since: float) -> str:
        """How jobs ended in Slurm's words (``OUT_OF_MEMORY``), "" when it cannot say.

        Accounting knows it for good, the controller for some minutes.
        """
        start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 60))
        what = ["-X", "--parsable2", "--format=JobID,State", f"--starttime={start}"]
        jobs = f"--jobs={','.join(ids)}"
        reply = self._clients.run(["sacct", *what, jobs])
        states = {row["state"] for row in parse.table(reply.out)} if reply.code == 0 else set()
        if not states:
            command = ["squeue", "--states=all", "--noheader", "--format=%T", jobs]
            reply = self._clients.run(command)
            states = set(reply.out.split()) if reply.code == 0 else set()
        return ", ".join(sorted(states - {"COMPLETED", "COMPLETING", "RUNNING", "PENDING"}))
