"""An index of 10 million steps, and the first batch of a run that is resumed.

``ours``: CPU seconds to have the index, the order and the samples of a place in the middle
of an epoch; the bars are 5 s and 200 MB. The baseline is a shuffled list with an entry
for every step; both must name the same episodes and rows.

``first_sample``: seconds from the start of a fresh process to the first batch of rank 5 of
8 in the middle of a run, on a set with LIBERO's numbers (130 files, 6,500 demonstrations, a
million steps), which is opened from the saved index beside the run; the bar is 1 s. The
batch must be the one of a process that reads every header, as the first one does.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import harness, index_set

LIMIT, LIMIT_MB, LIMIT_FIRST = 5.0, 200, 1.0
ROUNDS = 3
ROOT = Path(__file__).parent.parent


def side(*arguments: str) -> dict[str, Any]:
    """What a process of its own tells, and when it began."""
    began = time.monotonic()
    argv = [sys.executable, "-m", "benchmarks.data_index_side", *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, env=env, cwd=ROOT)
    told: dict[str, Any] = json.loads(done.stdout)
    if "at" in told:
        told["seconds"] = told["at"] - began
    return told


def first_samples() -> dict[str, Any]:
    """Of the process that walks the set, then of those that find the saved index."""
    with tempfile.TemporaryDirectory(prefix="rdtl-bench-") as temporary:
        folder, run = Path(temporary) / "set", Path(temporary) / "run"
        folder.mkdir()
        steps = index_set.write(folder)
        walking, *resumed = (side("first", str(folder), str(run)) for _ in range(1 + 2 * ROUNDS))
        saved = sum(path.stat().st_size for path in run.iterdir())
    seconds = harness.spread([told["seconds"] for told in resumed], "s")
    print(f"first sample: {seconds}, walking {walking['seconds']:.1f} s", file=sys.stderr)
    return {
        **seconds,
        "cpu_s": round(statistics.median(told["cpu_s"] for told in resumed), 2),
        "bar": LIMIT_FIRST,
        "of_limit": round(seconds["median"] / LIMIT_FIRST, 3),
        "steps": steps,
        "files": index_set.FILES,
        "saved_index_mb": round(saved / 1e6, 1),
        "walking_s": round(walking["seconds"], 2),
        "equal": all(told["digest"] == walking["digest"] for told in resumed),
    }


def main() -> None:
    """Measure both sides in turns, then the first samples."""
    started = time.monotonic()
    told: dict[str, list[dict[str, Any]]] = {"index": [], "list": []}

    def measured(name: str) -> float:
        told[name].append(side(name))
        return float(told[name][-1]["cpu_s"])

    ours, baseline = harness.alternate(lambda: measured("index"), lambda: measured("list"), ROUNDS)
    first = first_samples()
    a, b = harness.spread(ours, "CPU s"), harness.spread(baseline, "CPU s")
    digests = {cost["digest"] for costs in told.values() for cost in costs}
    memory = max(cost["mb"] for cost in told["index"])
    harness.finish(
        {
            "benchmark": "data_index",
            "ours": a,
            "baseline": {**b, "what": "shuffled list of 10 million (episode, row)"},
            "ratio": round(a["median"] / b["median"], 4),
            "limit": LIMIT,
            "of_limit": round(a["median"] / LIMIT, 3),
            "memory": {
                "mb": memory,
                "bar": LIMIT_MB,
                "of_limit": round(memory / LIMIT_MB, 3),
                "list_mb": max(cost["mb"] for cost in told["list"]),
            },
            "first_sample": first,
            "calibration": {"interpreter_start_cpu_s": harness.interpreter_start()},
            "baseline_of_anchor": None,
            "equal": len(digests) == 1 and first["equal"],
        },
        ["numpy", "h5py"],
        started,
    )


if __name__ == "__main__":
    main()
