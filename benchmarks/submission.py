"""Seconds from plan to job id for an array of 1,000 tasks: our backend against submitit's.

Both sides send a trivial task to the same real Slurm (started for this), held
back so that nothing runs meanwhile. Ours is everything after the plan: limits
read from the cluster, claim, list of tasks, script, sbatch, record. submitit's
is ``map_array`` of the same node task. Further figures: CPU seconds of plan and
scripts, sbatch calls against ceil(N / limit), and how time and memory grow to
100,000 tasks.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import submitit

from benchmarks import harness
from jobs.node import NodeTask, run_task
from launcher.arrays import cut
from launcher.core import files, plan
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.drive import Driver
from launcher.sites import Site
from launcher.submit.slurm import SlurmBackend

TASKS = 1000
QUIET_S, LOADED_S = 0.075, 0.62
"""Anchors: submitit's map_array of 1,000 on a quiet machine, and on one with more to do than
cores."""
CPU_LIMIT_S = 0.5
ROUNDS = 7
CURVE = (1_000, 10_000, 100_000)
ROOT = Path(__file__).parent.parent


@contextmanager
def cluster() -> Iterator[Site]:
    """A Slurm of its own with accounting, its nodes drained so that nothing starts."""
    root = tempfile.mkdtemp(prefix="rdtl-bench-")
    verb = [sys.executable, "-m", "tests.cluster.minislurm"]
    quiet: dict[str, Any] = {
        "cwd": ROOT,
        "check": True,
        "stdout": subprocess.DEVNULL,
        "timeout": 120,
    }
    subprocess.run([*verb, "up", "--root", root, "--nodes", "1", "--accounting"], **quiet)
    environment = {"SLURM_CONF": f"{root}/etc/slurm.conf"}
    try:
        drain = ["scontrol", "update", "node=n1", "state=drain", "reason=benchmark"]
        subprocess.run(drain, env={**os.environ, **environment}, check=True, timeout=30)
        yield Site(kind="slurm", partition="main", environment=environment)
    finally:
        subprocess.run([*verb, "down", "--root", root], **quiet)


def new_run(folder: Path, tasks: int) -> tuple[RunDir, Plan]:
    """A run directory with a plan of one stage, as ``rdtl evaluate`` makes it."""
    run = RunDir(Path(tempfile.mkdtemp(dir=folder)))
    stage = Stage(name="evaluate", argv=("true",), array=tasks, memory_mb=100)
    the_plan = Plan("benchmark", "minislurm", (stage,), {})
    files.write_json(run.plan, the_plan.to_dict())
    return run, the_plan


def ours(folder: Path, site: Site, tasks: int) -> tuple[float, SlurmBackend, RunDir]:
    """Wall seconds from a plan to all its job ids."""
    run, the_plan = new_run(folder, tasks)
    started = time.monotonic()
    backend = SlurmBackend(run, site)
    driver = Driver(run, the_plan, backend)
    driver.adopt()
    views = driver.look()
    driver.submit_ready(views)
    seconds = time.monotonic() - started
    assert not views[0].open, "not everything was sent"
    backend.cancel(views[0].ids)
    return seconds, backend, run


def theirs(folder: Path, site: Site) -> float:
    """Wall seconds of submitit's map_array with the same node tasks."""
    run, _ = new_run(folder, TASKS)
    executor = submitit.AutoExecutor(folder=run.root / "slurm", cluster="slurm")
    executor.update_parameters(slurm_partition="main", slurm_time=60, slurm_mem="100MB")
    os.environ.update(site.environment)
    tasks = [NodeTask(str(run.root), "evaluate", index, 1) for index in range(TASKS)]
    started = time.monotonic()
    jobs = executor.map_array(run_task, tasks)
    seconds = time.monotonic() - started
    subprocess.run(["scancel", jobs[0].job_id.split("_")[0]], check=True, timeout=30)
    return seconds


def sent_tasks(run: RunDir) -> list[int]:
    """The tasks that the lists beside the scripts name, in order."""
    found = [files.read_json(path)["indices"] for path in sorted(run.root.rglob("tasks.json"))]
    return sorted(index for indices in found for index in indices)


def planning(folder: Path, site: Site, tasks: int) -> dict[str, float]:
    """CPU seconds and peak MB of plan, cut and scripts; nothing is sent."""
    backend = SlurmBackend(RunDir(folder / "nothing"), site)
    size = backend.part_size(Stage("evaluate", ("true",), array=2))
    tracemalloc.start()
    began = time.process_time()
    run, the_plan = new_run(folder, tasks)
    stage = plan.read(run.plan).stages[0]
    parts = cut(stage.name, 1, list(range(stage.array)), size)
    scripts = [backend.script(replace(stage), part, []) for part in parts]
    cpu = time.process_time() - began
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    assert len(scripts) == math.ceil(tasks / (size or tasks)) and the_plan.stages[0] == stage
    return {"tasks": tasks, "cpu_s": round(cpu, 4), "peak_mb": round(peak, 2)}


def curve(folder: Path, site: Site) -> list[dict[str, float]]:
    """Wall seconds, sbatch calls and their expected number by array size, really submitted."""
    found = []
    for tasks in CURVE:
        limited = site.model_copy(update={"max_queued_tasks": None})
        seconds, backend, run = ours(folder, limited, tasks)
        told = backend.limits()
        assert told is not None and told.array_tasks is not None
        scripts = len(list(run.root.rglob("submission.sh")))
        found.append(
            {
                "tasks": tasks,
                "wall_s": round(seconds, 3),
                "sbatch_calls": scripts,
                "ceil": math.ceil(tasks / told.array_tasks),
                **{k: v for k, v in planning(folder, site, tasks).items() if k != "tasks"},
            }
        )
        print(json.dumps(found[-1]), file=sys.stderr)
    return found


def main() -> None:
    """Alternate both sides, then the curve."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name, cluster() as site:
        folder = Path(name)
        ours(folder, site, TASKS), theirs(folder, site)  # imports and caches
        same: list[bool] = []

        def our_side() -> float:
            seconds, _, run = ours(folder, site, TASKS)
            same.append(sent_tasks(run) == list(range(TASKS)))
            return seconds

        a_values, b_values = harness.alternate(our_side, lambda: theirs(folder, site), ROUNDS)
        cpu = planning(folder, site, TASKS)["cpu_s"]
        grown = curve(folder, site)
    anchor = LOADED_S if os.getloadavg()[0] > (os.cpu_count() or 1) else QUIET_S
    a, b = harness.spread(a_values, "s"), harness.spread(b_values, "s")
    ratio = a["median"] / b["median"]
    result: dict[str, Any] = {
        "benchmark": "submission",
        "tasks": TASKS,
        "ours": a,
        "baseline": {**b, "what": "submitit.AutoExecutor, map_array of the same tasks"},
        "ratio": round(ratio, 3),
        "limit": 1.0,
        "of_limit": round(ratio, 3),
        "plan_and_scripts": {
            "cpu_s": cpu,
            "limit_cpu_s": CPU_LIMIT_S,
            "of_limit": round(cpu / CPU_LIMIT_S, 3),
        },
        "curve": grown,
        "anchor_s": anchor,
        "calibration": {"interpreter_start_cpu_s": harness.interpreter_start()},
        "baseline_of_anchor": round(statistics.median(b_values) / anchor, 2),
        "equal": all(same) and all(row["sbatch_calls"] == row["ceil"] for row in grown),
    }
    harness.finish(result, ["submitit"], started)


if __name__ == "__main__":
    main()
