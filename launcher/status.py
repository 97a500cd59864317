"""The state of runs: their ledger first, then the queue, then accounting, else unknown.

A completion marker outranks everything. What has none is looked for in the queue;
what is in neither has ended, and accounting may know how. When the scheduler does
not answer, a task without marker is *unknown*, never *running*.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from launcher import owner
from launcher.controller import Controller, Snapshot, cache_folder
from launcher.core import plan
from launcher.core.errors import RdtlError, UsageError
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.judges import LIVE, Here, Judge, Queue, Silent, State, Task, launcher_of
from launcher.markers import Markers, Marks

OVERTAKEN = "what it reads was run again after it had ended"


@dataclass(frozen=True)
class StageStatus:
    """All tasks of a stage."""

    stage: Stage
    tasks: tuple[Task, ...]
    attempts: int
    began: float
    """Seconds since 1970 when the newest attempt was submitted, 0 before."""

    @property
    def counts(self) -> dict[State, int]:
        """Number of tasks by state."""
        return dict(Counter(task.state for task in self.tasks))

    def why(self, state: State) -> str:
        """What is most often said of tasks in ``state``, "" when nothing is."""
        said = Counter(task.why for task in self.tasks if task.state == state and task.why)
        return said.most_common(1)[0][0] if said else ""

    def jobs(self) -> list[str]:
        """Scheduler ids of tasks that may still do something."""
        return sorted({task.job for task in self.tasks if task.state in LIVE and task.job})


@dataclass(frozen=True)
class RunStatus:
    """One run."""

    run: RunDir
    plan: Plan
    stages: tuple[StageStatus, ...]
    markers: Markers = field(repr=False)
    kind: str
    """The kind of its site, or ``unknown`` when the site is not configured here."""
    asked_at: float = 0.0
    """When the scheduler answered last, 0 when it was not asked."""
    note: str = ""
    """What kept the scheduler from answering, "" when nothing did."""

    @property
    def counts(self) -> Counter[State]:
        """Number of tasks of all stages by state."""
        return sum((Counter(stage.counts) for stage in self.stages), Counter())

    @property
    def ends_with_launcher(self) -> bool:
        """Whether its tasks live exactly as long as their launcher, by the site's kind."""
        return self.kind in ("local", "hosts")

    @property
    def live(self) -> bool:
        """Whether anything of it may still do something."""
        return any(self.counts[state] for state in LIVE)

    @property
    def word(self) -> State | Literal["stopped"]:
        """The run in one word."""
        counts = self.counts
        if set(counts) == {"done"}:
            return "done"
        order: tuple[State, ...] = ("running", "waiting", "unknown", "failed")
        return next((state for state in order if counts[state]), "stopped")


def open_run(run: RunDir) -> Plan:
    """The plan of a run directory; UsageError RDTL-U014 when it is none."""
    if not run.plan.exists():
        raise UsageError(
            "RDTL-U014",
            "this is no run directory",
            where=f"{run.plan} does not exist",
            fix=_nearest(run) + "rdtl runs list shows the runs",
        )
    return plan.read(run.plan)


def _nearest(run: RunDir) -> str:
    """Runs beside it that are called so: a run's directory is NAME-SITE."""
    beside = run.root.parent.glob(f"{glob.escape(run.root.name)}-*/plan.json")
    found = sorted(path.parent.name for path in beside)
    return f"{' or '.join(found[:3])} is meant? " if found else ""


def of(run: RunDir, *, fresh: bool = False) -> RunStatus:
    """The state of one run; ``fresh`` asks the scheduler in any case."""
    return of_all([run], fresh=fresh)[0]


def of_all(
    runs: list[RunDir], *, fresh: bool = False, known: dict[RunDir, Markers] | None = None
) -> list[RunStatus]:
    """The state of several runs with one question for each cluster and user.

    ``known`` keeps what was read from ledgers, for a caller that looks again and again.
    """
    known = known if known is not None else {}
    clusters: dict[str, _Cluster] = {}
    looks = [_Look(run, known, clusters, fresh) for run in runs]
    for look in looks:
        look.after_the_queue()
    return [look.status() for look in looks]


class _Cluster:
    """One controller and its answer; ends of jobs are asked for once, for all runs."""

    def __init__(self, controller: Controller, fresh: bool) -> None:
        self._controller = controller
        self._since: dict[str, float] = {}
        self._snapshot = controller.snapshot(fresh=fresh)

    def queue(self, run: RunDir) -> Queue:
        """The judge of a run as of the last question."""
        return Queue(self._snapshot, run)

    def want_ends(self, gone: dict[str, float]) -> None:
        """Jobs that left the queue without a marker, with the time of their submission."""
        self._since |= gone

    def with_ends(self) -> Snapshot:
        """The answer, with what accounting says of those jobs."""
        if self._since:
            since, jobs = min(self._since.values()), set(self._since)
            self._snapshot = self._controller.with_ends(self._snapshot, jobs, since)
            self._since = {}
        return self._snapshot


class _Look:
    """One look at one run. The queue is asked before the ledger is read: a task that has left
    the queue by then has left its marker before."""

    def __init__(
        self,
        run: RunDir,
        known: dict[RunDir, Markers],
        clusters: dict[str, _Cluster],
        fresh: bool,
    ) -> None:
        self.run = run
        self.plan = open_run(run)
        self._known = known
        self._cluster: _Cluster | None = None
        self._judge, self._kind = Judge(), "done"
        if not self._all_done():
            self._find_judge(clusters, fresh)

    def _markers(self) -> Markers:
        if self.run in self._known:
            self._known[self.run].refresh()
        else:
            self._known[self.run] = Markers(self.run)
        return self._known[self.run]

    def _all_done(self) -> bool:
        markers = self._markers()
        return all(
            markers.done(stage, index) for stage in self.plan.stages for index in range(stage.array)
        )

    def _find_judge(self, clusters: dict[str, _Cluster], fresh: bool) -> None:
        from launcher import sites

        try:
            site = sites.of_run(self.run, self.plan.site)
        except RdtlError as error:  # seen from a directory that has no such site
            self._judge, self._kind = Silent(error.problem.what), "unknown"
            return
        self._kind = site.kind
        if site.ends_with_launcher:
            self._judge = Here(lives=launcher_of(self.run) is not None)
            return
        controller = controller_for(self.run, site.environment)
        if controller.key not in clusters:
            clusters[controller.key] = _Cluster(controller, fresh)
        self._cluster = clusters[controller.key]

    def after_the_queue(self) -> None:
        """Find out which jobs have left the queue without a marker."""
        if self._cluster:
            queue = self._cluster.queue(self.run)
            self._cluster.want_ends(queue.gone(self._markers(), self.plan))

    def status(self) -> RunStatus:
        """The state as of this look."""
        if self._cluster:
            self._judge = Queue(self._cluster.with_ends(), self.run)
        markers = self._markers()
        stages = tuple(_stage(markers, stage, self._judge) for stage in self.plan.stages)
        return RunStatus(
            self.run, self.plan, stages, markers, self._kind, self._judge.at, self._judge.note
        )


def controller_for(run: RunDir, environment: dict[str, str]) -> Controller:
    """The controller of a site, asked about the jobs of the run's owner."""
    from launcher.submit.slurm import clean_environment

    uid = run.root.stat().st_uid
    user = "" if uid == os.geteuid() else owner.account(uid)
    return Controller(clean_environment(os.environ, environment), cache_folder(), user)


def _stage(markers: Markers, stage: Stage, judge: Judge) -> StageStatus:
    newest = markers.newest(stage.name)
    attempts = markers.attempts(stage.name)
    places = {attempt.number: attempt.places() for attempt in attempts}
    tasks = []
    for index in range(stage.array):
        attempt = newest.get(index)
        number = attempt.number if attempt else 0
        if markers.done(stage, index):
            tasks.append(Task(index, "done", attempt=number))
        elif attempt is None:
            tasks.append(Task(index, "unsubmitted"))
        elif markers.overtaken(stage, index):
            tasks.append(Task(index, "unsubmitted", OVERTAKEN, number))
        else:
            mark = markers.marks(stage.name, index).get(number) or Marks()
            job, place = places[number].get(index, ("", None))
            tasks.append(judge.task(stage, index, attempt, mark, job, place))
    began = attempts[-1].submitted_at if attempts else 0.0
    return StageStatus(stage, tuple(tasks), attempts[-1].number if attempts else 0, began)
