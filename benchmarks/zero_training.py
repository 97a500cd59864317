"""The demo's training on data with a mistake that `rdtl` refuses.

``python -m benchmarks.zero_training DATA RUN [WARMUP]`` makes a run directory RUN, lets the data
stage measure DATA without the checks of conventions and of tails, and trains as `rdtl demo` does,
on one rank (16 samples a step, as its two ranks of 8), with 100 steps of warm-up unless told
otherwise.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.training_runs import free_port
from launcher.core import files


def prepare(data: Path, run: Path, warmup: int) -> None:
    """What the data stage leaves, whatever the data say of themselves."""
    from jobs import dataset
    from launcher.core.job import Job
    from launcher.schema import DataSet, Dataset, RunConfig
    from launcher.schema_train import Train
    from rdt.data import checks

    config = RunConfig(
        name="zero",
        dataset=Dataset(sets=[DataSet(path=str(data.resolve()))]),
        train=Train(
            loss="all",
            ranks_per_node=1,
            effective_batch=16,
            micro_batch=16,
            warmup_steps=warmup,
        ),
    )
    files.write_json(run / "plan.json", {"config": config.model_dump(mode="json")})
    left_out = (checks.conventions, checks.every_step_used)
    checks.CHECKS = tuple(check for check in checks.CHECKS if check not in left_out)
    dataset.body(Job.from_environment(str(run)))


def main(data: str, run: str, warmup: str = "100") -> None:
    """Prepare unless that is done, then train; again after a kill it goes on."""
    from launcher.presets import JOB_ENVIRONMENT

    folder = Path(run)
    if not (folder / "data/statistics.json").exists():
        prepare(Path(data), folder, int(warmup))
    argv = [sys.executable, "-P", "-m", "jobs.ranks", "1", "jobs.train", run]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    environment = {**os.environ, **JOB_ENVIRONMENT, **place}
    sys.exit(subprocess.run(argv, env=environment, check=False).returncode)


if __name__ == "__main__":
    main(*sys.argv[1:])
