"""Finds the job that ``rdtl shell --into`` means, and builds the call that enters it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from launcher.core.errors import UsageError
from launcher.core.runs import RunDir
from launcher.sites import Site
from launcher.submit.slurm import clean_environment


def find_stages(runs_dir: Path, into: str) -> tuple[RunDir, dict[str, str]]:
    """The run that ``into`` names (directory, name, job id), and the stage of each of its jobs.

    The newest submission comes first; a job id leaves only its own stage.
    """
    named = [path for path in (Path(into), runs_dir / into) if (path / "plan.json").exists()]
    candidates = named[:1] or [path.parent for path in sorted(runs_dir.glob("*/plan.json"))]
    for path in candidates:
        run = RunDir(path.resolve())
        events = sorted(
            ((run.ledger.read(name) or {}, name) for name in run.ledger.names("submitted.")),
            key=lambda item: item[0].get("at", 0),
            reverse=True,
        )
        stages = {
            str(id_): name.removeprefix("submitted.").rpartition(".a")[0]
            for event, name in events
            for id_ in event.get("ids", [])
        }
        wanted = into.split("_")[0]
        if wanted in stages:
            return run, {wanted: stages[wanted]}
        if named and stages:
            return run, stages
    raise UsageError(
        "RDTL-U017",
        f"no run and no submitted job called {into}",
        where=str(runs_dir.resolve()),
        fix="rdtl runs list shows the runs; --runs-dir says where they lie",
    )


def running_job(site: Site, ids: list[str]) -> tuple[str, str]:
    """The first of ``ids`` that runs now, and the id of its task to enter; UsageError RDTL-U018.

    Stages of a pipeline are submitted together, so the newest job seldom is the one that runs.
    """
    done = subprocess.run(
        ["squeue", "--noheader", "--states=RUNNING", f"--jobs={','.join(ids)}", "--format=%F %A"],
        env=clean_environment(os.environ, site.environment),
        capture_output=True,
        text=True,
        check=False,
    )
    running = dict(line.split() for line in done.stdout.splitlines())
    if not running:
        raise UsageError(
            "RDTL-U018",
            f"no job of {', '.join(ids)} runs now",
            why="a shell goes into a running job, beside its program",
            fix="wait until it runs; rdtl shell without --into asks for a job of its own",
        )
    job = next(id_ for id_ in ids if id_ in running)
    return job, running[job]


def inner_command(run: RunDir, stage: str, command: list[str]) -> list[str]:
    """``python -m jobs.shell`` for a stage of a run."""
    return [sys.executable, "-P", "-m", "jobs.shell", str(run.root), stage, *command]


def srun(site: Site, options: list[str], command: list[str], *, terminal: bool) -> list[str]:
    """``srun`` of one task on one node, with a terminal when the caller has one."""
    words = ["srun", "--nodes=1", "--ntasks=1", "--chdir=/", *options]
    words += ["--pty"] if terminal else []
    words += [f"--partition={site.partition}"] if site.partition else []
    words += [f"--account={site.account}"] if site.account else []
    return [*words, *command]


def start(site: Site, run: RunDir, command: list[str]) -> int:
    """Run ``command`` in the foreground with the run's code snapshot; returns its exit code."""
    environment = clean_environment(os.environ, site.environment)
    code = {"PYTHONPATH": str(run.code), "PYTHONSAFEPATH": "1"}
    return subprocess.run(command, env={**environment, **code}, check=False).returncode
