"""A recipe inside a job of a site: a plan of one stage whose program is the runner."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from launcher import create, presets, run_command, sites, status
from launcher.core import dag_reading
from launcher.core.dag_files import BoxRun
from launcher.core.plan import Plan
from launcher.core.runs import RunDir
from launcher.dag import client, load, places, resolve, secrets, view
from launcher.dag.client import Order
from launcher.dag.live import say
from launcher.drive import StageView
from launcher.judges import launcher_of
from launcher.output import Output
from launcher.submit.slurm import job_prefix


@dataclass(frozen=True)
class Job:
    """A recipe's order together with the run and the plan that carry it out."""

    order: Order
    run: RunDir
    plan: Plan
    site: sites.Site
    secrets: Path
    """File of mode 600 that the job reads; it lies beside no run and is removed at the end."""


def make(
    name: str,
    profile: str | None,
    values: Mapping[str, str],
    run_name: str | None,
    site_name: str,
    runs_dir: Path,
    minutes: int,
) -> Job:
    """The job of a recipe; nothing is written. Raises as :func:`client.order`."""
    loaded, site = load.load(name), sites.load(site_name)
    where = resolve.run_directory(loaded.recipe, profile, str(runs_dir.resolve()), run_name)
    run = RunDir(Path(f"{where}-{site_name}"))
    folder = str(run.root / "recipe")
    graph = resolve.resolve(loaded, folder, profile, values)
    dag_reading.check(graph)
    order = Order(loaded, graph, places.here(), folder)
    machine = resolve.machine(loaded, profile, values)
    hidden = _secrets_file(run)
    words = ["--secrets", str(hidden)] if order.secrets() else []
    plan = presets.command(
        [sys.executable, f"{folder}/runner.pyz", "run", folder, *words],
        site_name, site, run, None, nodes=1, gpus=machine.gpus, per_gpu=False,
        working_directory=run.root, minutes=minutes, memory_gb=machine.memory_gb or 1.0,
    )  # fmt: skip
    digest = hashlib.sha256(client.text(order).encode()).hexdigest()
    plan = replace(plan, config={**plan.config, "graph": digest})  # another graph: another run
    return Job(order, run, plan, site, hidden)


def _secrets_file(run: RunDir) -> Path:
    state = Path(os.environ.get("XDG_STATE_HOME", "~/.local/state")).expanduser()
    return state / "rdtl" / "secrets" / hashlib.sha256(str(run.root).encode()).hexdigest()[:32]


def prepare(job: Job, given: Mapping[str, str]) -> None:
    """Lay down what the job reads, as it is now; files, code and runner not under a runner at work
    or a job that may start one at any moment.

    Raises UsageError RDTL-U013 for a run with another graph.
    """
    if job.run.plan.exists():
        create.create(job.run, job.plan, as_yaml(job))
    if not (_goes_on(job) or BoxRun(Path(job.order.run)).held()):
        client.send(job.order)
        job.order.place.put(f"{job.order.run}/dag.json", client.text(job.order).encode())
    if given:
        job.secrets.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        job.secrets.unlink(missing_ok=True)
        descriptor = os.open(job.secrets, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(secrets.as_lines(given))


def forget(job: Job) -> None:
    """Remove the file of secrets, unless a job that waits or runs will read it."""
    if not _goes_on(job):
        job.secrets.unlink(missing_ok=True)


def _goes_on(job: Job) -> bool:
    """Whether a job of the run waits or runs, or may, without this process."""
    if job.site.ends_with_launcher:
        return launcher_of(job.run) not in (None, os.getpid())
    if not job.run.root.exists():
        return False
    queue = status.controller_for(job.run, job.site.environment).snapshot(fresh=True)
    return bool(queue.error) or any(row.name.startswith(job_prefix(job.run)) for row in queue.rows)


def as_yaml(job: Job) -> str:
    """run.yaml of such a run."""
    return run_command.as_yaml([*job.plan.stages[0].argv])


class Tail:
    """Says what the runner's events tell while the job is driven."""

    def __init__(self, job: Job, output: Output) -> None:
        self._run = BoxRun(Path(job.order.run))
        self._output = output
        told = self._run.told()
        self.view = view.of(step.name for step in job.order.graph.steps)
        self._after = told[-1]["seq"] if told else 0

    def __call__(self, views: list[StageView]) -> None:
        """Say what is new."""
        for event in self._run.told(self._after):
            self._after = int(event["seq"])
            if self.view.take(event):
                say(self._output, event)
