"""CPU seconds of ``rdtl runs show`` for an array of 1,000 tasks, against asking task by task.

The bar is 0.5 s. The baseline asks the ledger one question for each task, as
one does who has a single task; the curve shows ours at 1,000 to 20,000 tasks. The scheduler is
not part of it: the runs are of this machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import harness
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.create import create

LIMIT = 0.5
TASKS = 1000
CURVE = (1000, 5000, 20000)


def array(folder: Path, tasks: int) -> RunDir:
    """A run whose even tasks are done and whose others failed."""
    run = RunDir(folder / f"{tasks}-local")
    stage = Stage("work", ("true",), array=tasks)
    create(run, Plan("bench", "local", (stage,), {"command": ["true"]}), "command: [true]\n")
    run.ledger.publish("claim.work.a1", indices=list(range(tasks)))
    run.ledger.publish("submitted.work.a1", ids=["1"], indices=list(range(tasks)))
    for index in range(tasks):
        # Not through the ledger: 40,000 flushes to disk are not what is measured here.
        for name, event in (
            (f"started.work.i{index}.a1.r0", {"at": 1.0, "progress": 0}),
            (f"finished.work.i{index}.n0.a1.r0", {"at": 2.0, "exit_code": index % 2}),
        ):
            (run.ledger.folder / f"{name}.json").write_text(json.dumps(event))
    return run


def ours(run: RunDir) -> list[str]:
    """The command that is measured."""
    return [sys.executable, "-P", "-m", "launcher", "runs", "show", str(run.root), "--json"]


def counted(run: RunDir) -> int:
    """Tasks that our command says are done."""
    printed = subprocess.run(ours(run), check=True, capture_output=True, text=True).stdout
    done: int = json.loads(printed)["stages"][0]["done"]
    return done


def main() -> None:
    """Measure both sides on one array, then ours on larger ones."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        run = array(Path(folder), TASKS)
        baseline = [sys.executable, "-m", "benchmarks.runs_show_side", str(run.root), str(TASKS)]
        a, b = harness.alternate(
            lambda: harness.child_cpu_seconds(ours(run)),
            lambda: harness.child_cpu_seconds(baseline),
            5,
        )
        printed = subprocess.run(baseline, check=True, capture_output=True, text=True).stdout
        equal = counted(run) == int(printed) == TASKS // 2
        curve = {
            tasks: round(harness.child_cpu_seconds(ours(array(Path(folder) / "c", tasks))), 3)
            for tasks in CURVE
        }
    mine, theirs = harness.spread(a, "CPU s"), harness.spread(b, "CPU s")
    harness.finish(
        {
            "benchmark": "runs_show",
            "ours": mine,
            "baseline": {**theirs, "what": "one question to the ledger for each of 1,000 tasks"},
            "ratio": round(mine["median"] / theirs["median"], 3),
            "limit": LIMIT,
            "of_limit": round(mine["median"] / LIMIT, 3),
            "curve_cpu_s": curve,
            "calibration": {"interpreter_start_cpu_s": harness.interpreter_start()},
            "baseline_of_anchor": None,  # nobody has published such a figure
            "equal": equal,
        },
        ["typer"],
        started,
    )


if __name__ == "__main__":
    main()
