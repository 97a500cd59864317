"""Collect demonstrations with the scripted expert: ``python -m jobs.collect RUN_DIR``.

Demonstration d belongs to array task d % count. Each is published whole as
``data/parts/demo_NNN.hdf5`` and depends on the configuration alone, so a task that
was killed continues with the first one that is missing, and any number of tasks
gives the same files.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from jobs.fence import require_current
from launcher.core.files import whole_file
from launcher.core.job import Job, run_job
from rdt.sim import backend, demo_file
from rdt.sim.demonstration import find_run, replay
from rdt.sim.libero import Simulator, find_task


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
    if missing:
        collector = Collector(job)
    for number in missing:
        print(collector.collect(number), flush=True)
        done += 1
        job.progress(done, len(numbers), "demonstrations")
        job.may_stop_here()


def _part(job: Job, number: int) -> Path:
    return job.run.data / "parts" / f"demo_{number:03d}.hdf5"


def _have(job: Job, number: int) -> bool:
    path = _part(job, number)
    if not path.exists():
        return False
    demo_file.require_belongs(path, path.stem, settings(job))
    return True


def settings(job: Job) -> str:
    """Everything that a demonstration depends on, as canonical JSON."""
    collect = {k: v for k, v in job.config["collect"].items() if k not in ("demos", "shards")}
    parts = {
        "seed": job.config["seed"],
        "task": job.config["task"],
        "collect": collect,
        "versions": backend.versions(),
    }
    return json.dumps(parts, sort_keys=True)


class Collector:
    """Two simulators of the same task: a blind one that searches, a seeing one that records."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._blind = Simulator(job.config["task"], blind=True)
        self._seeing = Simulator(job.config["task"], blind=False)

    def collect(self, number: int) -> str:
        """Publish demonstration ``number``; returns a line about it."""
        collect, started = self._job.config["collect"], time.process_time()
        run = find_run(self._blind, collect, self._job.config["seed"], number)
        searched = time.process_time()
        frames = replay(self._seeing, run, collect["render_every"])
        path = _part(self._job, number)
        require_current(self._job)
        with whole_file(path) as temporary:
            demo_file.write(temporary, path.stem, self._seeing, run, frames, settings(self._job))
        return (
            f"{path.stem}: initial state {run.init_state}, retry {run.retry}, {len(frames)} steps, "
            f"{searched - started:.1f} s CPU blind, {time.process_time() - searched:.1f} s rendered"
        )


if __name__ == "__main__":
    run_job(body)
