"""Run this array task's share of a sweep: ``python -m jobs.sweep RUN_DIR``.

A cell is evaluated as any evaluation is, in a directory of its own inside the run; see
:mod:`rdt.spec.sweep`.
"""

from __future__ import annotations

from jobs import evaluate
from launcher.core import files
from launcher.core.job import Job, run_job
from launcher.core.runs import RunDir
from rdt.spec import sweep
from rdt.spec.record import EpisodeKey


def body(job: Job) -> None:
    """Run the missing episodes of this task, cell by cell.

    Raises RdtlError RDTL-E066, after the last one, for a cell without any result.
    """
    evaluate.prove(job)
    mine = sweep.share(job.config, job.index, job.count)
    total, before = sum(len(keys) for _, keys in mine), 0
    done: list[tuple[Job, list[EpisodeKey]]] = []
    for cell, keys in mine:
        own = cell._replace(checkpoint=cell.checkpoint or str(job.run.policy))
        config = sweep.section(job.config, own)
        run = RunDir(job.run.cells / cell.name)
        files.publish_once(run.plan, {"name": cell.name, "site": "", "config": config})

        def told(done: int, text: str, before: int = before, name: str = cell.name) -> None:
            job.progress(before + done, total, "episodes", name)

        done.append((job.inside(run, config), keys))
        evaluate.run(*done[-1], told)
        before += len(keys)
    for inside, keys in done:
        evaluate.require_results(inside, keys)


if __name__ == "__main__":
    run_job(body)
