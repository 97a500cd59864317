"""CPU microseconds per training sample from contiguous LIBERO files, warm; and cold samples/s.

A sample is 64 mapped and masked actions, a state and 2 moments × 2 cameras of 128 pixels,
collated to batches of 32. Ours against a loader that opens the file for every sample, each
side in its own processes, in turns. The bars are 45 times less CPU time when the files are
in memory, and 10 times the samples a second when they are not. ``with_transforms``: samples/s
that a training on one core of a processor would get at most; on a GPU transforms run there.

The anchor is the baseline where copying a sample's 196,608 bytes took 8.8 µs: 687–856 µs,
scaled by what that copy takes here; ``ours_of_copying`` says how far ours is from the copy
alone.
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

from benchmarks import harness, loader_set

LIMIT_WARM, LIMIT_COLD = 45, 10
ANCHOR_OF_COPYING = 767.0 / 8.8  # the middle, as factors go
ROUNDS = 5
COMPARED = 6
TRANSFORMS = ("conditions", "resized", "augmented")
COUNTS = {("ours", "warm"): (700, 700), ("reference", "warm"): (2, 40)}
TRANSFORMED = 12
COLD = {"ours": (0, 40), "reference": (0, 12)}


def side(name: str, folder: Path, how: str) -> dict[str, Any]:
    """Costs and checksums of one process."""
    before, batches = COUNTS[name, how] if how == "warm" else COLD[name]
    counts = [COMPARED if how == "warm" else 0, before, batches]
    return run([name, str(folder), how, *map(str, counts)])


def transformed(folder: Path, how: str) -> dict[str, Any]:
    """Samples/s of ours, warm, to the end of the transforms."""
    return run([how, str(folder), "warm", "0", "40", str(TRANSFORMED)])


def run(arguments: list[str]) -> dict[str, Any]:
    """What a process of its own tells."""
    argv = [sys.executable, "-m", "benchmarks.loader_side", *arguments]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, env=env)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(folder: Path, how: str, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Costs of both sides, in turns."""
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "reference": []}
    for number in range(rounds):
        for name, costs in found.items():
            costs.append(side(name, folder, how))
        told = {name: round(costs[-1]["cpu_us"], 1) for name, costs in found.items()}
        rates = {name: round(costs[-1]["samples_per_s"]) for name, costs in found.items()}
        print(f"{how} {number + 1}: CPU µs {told}, samples/s {rates}", file=sys.stderr)
    return found


def values(costs: list[dict[str, Any]], key: str) -> list[float]:
    """One figure of all rounds."""
    return [cost[key] for cost in costs]


def main() -> None:
    """Measure both in turns, warm, then cold."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        loader_set.write(Path(name))
        warm = measure(Path(name), "warm", ROUNDS)
        cold = measure(Path(name), "cold", 3)
        ends = {
            how: values([transformed(Path(name), how) for _ in range(3)], "samples_per_s")
            for how in TRANSFORMS
        }
    mine = statistics.median(values(warm["ours"], "cpu_us"))
    theirs = statistics.median(values(warm["reference"], "cpu_us"))
    copying = statistics.median(values([*warm["ours"], *warm["reference"]], "copying_us"))
    rates = {
        f"{how}_{side}": harness.spread(values(costs, "samples_per_s"), "samples/s")
        for how, found in (("warm", warm), ("cold", cold))
        for side, costs in found.items()
    }
    cold_times = rates["cold_ours"]["median"] / rates["cold_reference"]["median"]
    harness.finish(
        {
            "benchmark": "loader",
            "ours": harness.spread(values(warm["ours"], "cpu_us"), "CPU µs"),
            "baseline": {
                **harness.spread(values(warm["reference"], "cpu_us"), "CPU µs"),
                "what": "file opened for every sample",
            },
            "ratio": round(mine / theirs, 4),
            "limit": round(1 / LIMIT_WARM, 4),
            "of_limit": round(mine / theirs * LIMIT_WARM, 3),
            "speed_up": round(theirs / mine, 1),
            "bar": LIMIT_WARM,
            "cold": {
                "speed_up": round(cold_times, 1),
                "bar": LIMIT_COLD,
                "of_limit": round(LIMIT_COLD / cold_times, 3),
            },
            **rates,
            "with_transforms": {
                how: harness.spread(found, "samples/s") for how, found in ends.items()
            },
            "ours_of_copying": round(mine / copying, 2),
            "calibration": {"copying_us": round(copying, 1)},
            "baseline_of_anchor": round(theirs / (ANCHOR_OF_COPYING * copying), 2),
            "equal": all(
                cost["digests"] == warm["ours"][0]["digests"]
                for costs in warm.values()
                for cost in costs
            ),
        },
        ["h5py", "numpy"],
        started,
    )


if __name__ == "__main__":
    main()
