"""Collect demonstrations with the scripted expert: ``python -m jobs.collect RUN_DIR``.

Demonstration d belongs to array task d % count. Each is published whole as
``data/parts/demo_NNN.hdf5`` and depends on the configuration alone, so a task that
was killed continues with the first one that is missing, and any number of tasks
gives the same files.
"""

from __future__ import annotations

from pathlib import Path

from jobs.fence import require_current
from launcher.core.files import whole_file
from launcher.core.job import Job, run_job
from rdt.sim import demo_file
from rdt.sim.collecting import Collector, settings
from rdt.sim.tasks import find_task


def body(job: Job) -> None:
    """Collect this task's share; does nothing when the merged data set already exists."""
    task = job.config["task"]
    merged = f"{find_task(task['suite'], task['task_id']).name}_demo.hdf5"
    if (job.run.data / task["suite"] / merged).exists():
        print(f"{merged} is there: nothing to collect", flush=True)
        return
    numbers = list(range(job.index, job.config["collect"]["demos"], job.count))
    missing = [number for number in numbers if not _have(job, number)]
    done = len(numbers) - len(missing)
    job.progress(done, len(numbers), "demonstrations")
    if not missing:
        return
    collector = Collector(task, job.config["collect"], job.config["seed"])
    for number in missing:
        path = _part(job, number)
        with whole_file(path) as temporary:
            line = collector.collect(number, temporary, path.stem)
            require_current(job)
        print(line, flush=True)
        done += 1
        job.progress(done, len(numbers), "demonstrations")
        job.may_stop_here()


def _part(job: Job, number: int) -> Path:
    return job.run.data / "parts" / f"demo_{number:03d}.hdf5"


def _have(job: Job, number: int) -> bool:
    path = _part(job, number)
    if not path.exists():
        return False
    config = job.config
    wanted = settings(config["task"], config["collect"], config["seed"])
    demo_file.require_belongs(path, path.stem, wanted)
    return True


if __name__ == "__main__":
    run_job(body)
