"""CPU seconds of a whole policy call at real sizes: SigLIP so400m and rdt-1b in bf16.

Ours, as an evaluation asks it, against a call in the shape of the reference: six
pictures through the encoder, keys of all conditions in every diffusion step. Random
weights, the same for both, each side in its own processes. The bar is a speed-up of
1.9 with an execution horizon of 16 (four pictures are new) and of 2.8 when every
control step is a query (two are new). The baseline's cost does not depend on the query.

The anchor is 1.36 times the floor, which is the counted FLOP over this machine's rate
of bf16 matrix products: so it was where 10.04 TFLOP took 68 s at 203 GFLOP/s.
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

import numpy as np
import torch

from benchmarks import harness

LIMITS = {16: 1 / 1.9, 1: 1 / 2.8}
ANCHOR_OF_FLOOR = 1.36
ROUNDS = 3
NEAR = 0.02
"""Relative L2 within which two bf16 computations in another order count as equal; each is
within 0.01 of float32."""


def side(name: str, folder: Path, queries: list[int]) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Costs and answers (queries, 64, 128) of one process."""
    out = folder / f"{name}.npy"
    argv = [sys.executable, "-m", "benchmarks.policy_side", name, str(out), *map(str, queries)]
    threads = {"OMP_NUM_THREADS": str(os.cpu_count()), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        argv, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1]), np.load(out)


def gemm_rate() -> float:
    """FLOP per CPU second of a bf16 product of the encoder's size, best of ten."""
    torch.set_num_threads(1)
    x, w = torch.randn(729, 1152).bfloat16(), torch.randn(4304, 1152).bfloat16()
    seconds = []
    for _ in range(10):
        began = time.process_time()
        torch.nn.functional.linear(x, w)
        seconds.append(time.process_time() - began)
    return 2 * 729 * 1152 * 4304 / min(seconds)


def measure() -> tuple[dict[int, list[dict[str, Any]]], list[dict[str, Any]], list[float]]:
    """Costs of ours by horizon, costs of the baseline, distances of the answers."""
    ours: dict[int, list[dict[str, Any]]] = {16: [], 1: []}
    baseline, distances = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            costs, answers = side("ours", Path(folder), [0, 1, 2])
            ours[16].append(costs[1])
            ours[1].append(costs[2])
            query = 1 + number % 2
            costs, expected = side("reference", Path(folder), [query])
            baseline += costs
            difference = np.linalg.norm(answers[query] - expected[0])
            distances.append(float(difference / np.linalg.norm(expected[0])))
            told = [round(c["cpu_s"], 1) for c in (ours[16][-1], ours[1][-1], baseline[-1])]
            print(f"round {number + 1}: {told}, distance {distances[-1]:.4f}", file=sys.stderr)
    return ours, baseline, distances


def main() -> None:
    """Measure both in turns."""
    started = time.monotonic()
    rate = gemm_rate()
    ours, baseline, distances = measure()

    def cpu(costs: list[dict[str, Any]]) -> list[float]:
        return [cost["cpu_s"] for cost in costs]

    base = statistics.median(cpu(baseline))
    flop = baseline[0]["flop"]
    horizons = {
        f"horizon_{horizon}": {
            **harness.spread(cpu(costs), "s"),
            "wall_s": round(statistics.median(cost["wall_s"] for cost in costs), 2),
            "tflop": round(costs[0]["flop"] / 1e12, 2),
            "floor_s": round(costs[0]["flop"] / rate, 2),
            "speed_up": round(base / statistics.median(cpu(costs)), 2),
            "bar": round(1 / LIMITS[horizon], 2),
            "of_limit": round(statistics.median(cpu(costs)) / base / LIMITS[horizon], 3),
        }
        for horizon, costs in ours.items()
    }
    mine = statistics.median(cpu(ours[16]))
    harness.finish(
        {
            "benchmark": "policy_call",
            "ours": harness.spread(cpu(ours[16]), "s"),
            "baseline": {
                **harness.spread(cpu(baseline), "s"),
                "what": "reference-shaped call",
                "wall_s": round(statistics.median(cost["wall_s"] for cost in baseline), 2),
                "tflop": round(flop / 1e12, 2),
            },
            "ratio": round(mine / base, 3),
            "limit": round(LIMITS[16], 3),
            "of_limit": round(mine / base / LIMITS[16], 3),
            **horizons,
            "threads": os.cpu_count(),
            "relative_l2": [round(distance, 4) for distance in distances],
            "calibration": {"gemm_gflop_per_cpu_s": round(rate / 1e9)},
            "baseline_of_anchor": round(base / (ANCHOR_OF_FLOOR * flop / rate), 2),
            "equal": max(distances) <= NEAR,
        },
        ["torch", "transformers", "numpy"],
        started,
    )


if __name__ == "__main__":
    main()
