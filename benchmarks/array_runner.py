"""Wall seconds for 100 trivial array tasks: our capped executor against submitit's LocalExecutor.

The same function, the same interface (``map_array``), results compared. The
anchor for submitit's is 21.5 s on a quiet machine: it starts everything at once
with a pause of 0.2 s between jobs.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from typing import Any

import submitit

from benchmarks import harness
from launcher.submit.local import CappedExecutor

TASKS = 100
ANCHOR = 21.5
LIMIT = 1 / 3
JOBS = os.cpu_count() or 1


def square(number: int) -> int:
    """The trivial task."""
    return number * number


def run(executor: Any) -> tuple[float, list[int]]:
    """Wall seconds from submission to the last result, and the results."""
    started = time.monotonic()
    jobs = executor.map_array(square, range(TASKS))
    results = [job.result() for job in jobs]
    return time.monotonic() - started, results


def main() -> None:
    """Alternate both executors in one run."""
    started = time.monotonic()
    expected = [number * number for number in range(TASKS)]
    same = []

    def side(make: Any) -> float:
        with tempfile.TemporaryDirectory() as folder:
            seconds, results = run(make(folder))
        same.append(results == expected)
        return seconds

    ours, baseline = harness.alternate(
        lambda: side(lambda folder: CappedExecutor(folder, jobs=JOBS)),
        lambda: side(lambda folder: submitit.LocalExecutor(folder)),
        3,
    )
    a, b = harness.spread(ours, "s"), harness.spread(baseline, "s")
    harness.finish(
        {
            "benchmark": "array_runner",
            "tasks": TASKS,
            "jobs": JOBS,
            "ours": a,
            "baseline": {**b, "what": "submitit.LocalExecutor, map_array"},
            "ratio": round(a["median"] / b["median"], 4),
            "limit": round(LIMIT, 3),
            "of_limit": round(a["median"] / b["median"] / LIMIT, 3),
            "calibration": {"interpreter_start_cpu_s": harness.interpreter_start()},
            "baseline_of_anchor": round(statistics.median(baseline) / ANCHOR, 2),
            "equal": all(same),
        },
        ["submitit"],
        started,
    )


if __name__ == "__main__":
    main()
