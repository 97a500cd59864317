"""Slurm through submitit: one array job per stage, chained by dependencies.

submitit writes and submits the script; Slurm's own words (squeue) and the run's
ledger say how it went. submitit's job state is never asked: without accounting
it stays UNKNOWN for ever.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.core.errors import RemoteError
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.sites import Site, require_scheduler

INHERITED = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_", "PMI_", "PMIX_")
KEPT = ("SLURM_CONF",)


def job_name(run: RunDir, stage: str, attempt: int) -> str:
    """Deterministic tag of one submission: the same run, stage and attempt give the same name."""
    run_id = hashlib.sha256(str(run.root).encode()).hexdigest()[:8]
    return f"rdtl-{run_id}-{stage}-a{attempt}"


def clean_environment(current: Mapping[str, str], site: dict[str, str]) -> dict[str, str]:
    """``current`` without what an enclosing job left behind, plus the site's variables.

    A job that inherits SLURM_* from the job in which it was submitted reads the
    wrong node list and array index.
    """
    kept = {k: v for k, v in current.items() if k in KEPT or not k.startswith(INHERITED)}
    return {**kept, **site}


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def script_parameters(
    run: RunDir, site: Site, stage: Stage, attempt: int, after: list[str]
) -> dict[str, Any]:
    """submitit parameters of one stage: a pure function of its arguments."""
    kind = "afterany" if stage.needs_ended else "afterok"
    extra: dict[str, Any] = {"dependency": f"{kind}:{':'.join(after)}"} if after else {}
    if site.account:
        extra["account"] = site.account
    return {
        "slurm_job_name": job_name(run, stage.name, attempt),
        "slurm_partition": site.partition,
        "slurm_nodes": stage.nodes,
        "slurm_ntasks_per_node": 1,
        "slurm_cpus_per_task": stage.cpus,
        "slurm_mem": f"{stage.memory_mb}MB",
        "slurm_gpus_per_node": stage.gpus_per_node or None,
        "slurm_time": stage.minutes,
        "slurm_srun_args": ["--kill-on-bad-exit=1"],  # a dead rank must not leave others hanging
        "slurm_setup": [f"export PYTHONPATH={_quote(run.code)} PYTHONSAFEPATH=1"],
        "slurm_additional_parameters": extra or None,
    }


def _quote(path: Path) -> str:
    return shlex.quote(str(path))


class SlurmBackend:
    """Submits stages of one run to the cluster that the site names."""

    poll_s = 2.0
    submits_ahead = True

    def __init__(self, run: RunDir, site: Site) -> None:
        require_scheduler("slurm")
        self._run = run
        self._site = site
        self._environment = clean_environment(os.environ, site.environment)

    def _executor(self, stage: Stage, attempt: int, after: list[str]) -> Any:
        import submitit

        folder = self._run.root / "slurm" / stage.name / f"attempt_{attempt}"
        executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
        executor.update_parameters(
            **script_parameters(self._run, self._site, stage, attempt, after)
        )
        return executor

    def script(self, plan: Plan, stage: Stage, attempt: int, after: list[str]) -> str:
        """The exact sbatch script of a stage; for a pipeline the parents' ids are not known yet."""
        with _environment(self._environment):
            inner = self._executor(stage, attempt, after)._executor
            if stage.array > 1:
                inner.parameters["map_count"] = stage.array
            text: str = inner._make_submission_file_text(inner._submitit_command_str, "")
            return text

    def submit(
        self, plan: Plan, stage: Stage, attempt: int, indices: list[int], after: list[str]
    ) -> list[str]:
        """sbatch one stage; returns the job id. Raises RemoteError with sbatch's own words."""
        from submitit.core.utils import FailedJobError

        from jobs.node import NodeTask, run_task

        tasks = [NodeTask(str(self._run.root), stage.name, i, attempt) for i in indices]
        try:
            with _environment(self._environment):
                executor = self._executor(stage, attempt, after)
                # An array of one would lose its index; a plain job is what Slurm shows best.
                jobs = (
                    executor.map_array(run_task, tasks)
                    if len(tasks) > 1
                    else [executor.submit(run_task, tasks[0])]
                )
        except (FailedJobError, subprocess.SubprocessError) as error:
            raise RemoteError(
                "RDTL-S031",
                f"sbatch refused stage {stage.name}",
                where=" ".join(str(error).split())[:400],
                fix=f"rdtl ... --dry-run prints the script; look at {self._run.root / 'slurm'}",
            ) from error
        return sorted({job.job_id.split("_")[0] for job in jobs})

    def find(self, stage: str, attempt: int) -> list[str]:
        """Ids of jobs in the queue that carry the tag of this submission."""
        name = job_name(self._run, stage, attempt)
        return sorted({job for job, _, _, job_tag in self._queue() if job_tag == name})

    def alive(self, ids: list[str]) -> set[str]:
        """Those of ``ids`` that still wait or run. A job that can never start is cancelled."""
        found = set()
        for job, _state, reason, _name in self._queue():
            if job in ids and "DependencyNeverSatisfied" in reason:
                self.cancel([job])
            elif job in ids:
                found.add(job)
        return found

    def cancel(self, ids: list[str]) -> None:
        """scancel all ``ids`` in one call."""
        if ids:
            subprocess.run(["scancel", *ids], env=self._environment, check=False)

    def _queue(self) -> list[tuple[str, str, str, str]]:
        command = ["squeue", "--me", "--noheader", "--format=%F|%T|%r|%j"]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            raise RemoteError(
                "RDTL-S032",
                "squeue does not answer",
                where=done.stderr.strip()[:300],
                why="the jobs go on; only looking at them failed",
                fix="check the cluster (sinfo), then run the same command again: it continues",
            )
        rows = [line.split("|", 3) for line in done.stdout.splitlines() if line.count("|") >= 3]
        return [(a, b, c, d) for a, b, c, d in rows]
