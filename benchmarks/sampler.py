"""CPU seconds of one action chunk of the 170M network, against the path without any memory.

Real sizes (4374 picture tokens, 32 language tokens, 5 steps), random weights,
one sample, one thread, float32 and bfloat16. The baseline is the literal second
implementation of the tests, which is shaped like the reference: keys and values
at every step, norms in single operations, the same linear layers and attention.
The bars are 2.8 times as fast in float32 and 2.4 times in bfloat16. The floor is
what the matrix products alone take at this machine's measured rate.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file
from torch import Tensor

from benchmarks import harness
from benchmarks.sampler_side import CONFIG, LANGUAGE
from tests.rdt import golden

ROUNDS = 3


class Bar(NamedTuple):
    """How many times as fast we must be; what the baseline took elsewhere, at which GEMM rate."""

    times: float
    anchor_s: float
    anchor_rate: float


BARS = {"fp32": Bar(2.8, 11.0, 100e9), "bf16": Bar(2.4, 4.74, 422e9)}


class Side:
    """One side in one dtype; keeps the last chunk and the GEMM rates of its processes."""

    def __init__(self, name: str, dtype: str, folder: Path) -> None:
        self.path = folder / f"{name}-{dtype}.safetensors"
        self._argv = [sys.executable, "-m", "benchmarks.sampler_side", name, dtype, str(self.path)]
        self.rates: list[float] = []

    def measure(self) -> float:
        """CPU seconds of a chunk, in a fresh process."""
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        printed = subprocess.run(self._argv, check=True, capture_output=True, text=True, env=env)
        seconds, rate = map(float, printed.stdout.split())
        self.rates.append(rate)
        return seconds

    def chunk(self) -> Tensor:
        """What the last process sampled."""
        return load_file(self.path)["chunk"]


def flop(cached: bool) -> float:
    """FLOP of the matrix products of one chunk (two for a multiplication with an addition)."""
    h, language, pictures = CONFIG.hidden_size, LANGUAGE, CONFIG.img_cond_len
    tokens = CONFIG.pred_horizon + 3
    adaptors = language * (CONFIG.lang_token_dim * h + h * h)
    adaptors += pictures * (CONFIG.img_token_dim * h + h * h)
    keys = CONFIG.depth // 2 * (language + pictures) * h * 2 * h
    linear = CONFIG.depth * tokens * 8 * h * h
    attention = 2 * h * tokens * (CONFIG.depth * tokens + CONFIG.depth // 2 * (language + pictures))
    ends = (tokens - 2) * (2 * CONFIG.state_token_dim * h + 2 * h * h)
    ends += tokens * (h * h + h * CONFIG.action_dim)
    steps = CONFIG.sampling_steps
    return 2.0 * (adaptors + keys * (1 if cached else steps) + steps * (linear + attention + ends))


def compare(dtype: str, folder: Path) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Figures of both sides in one dtype, and their chunks."""
    bar = BARS[dtype]
    ours, baseline = Side("ours", dtype, folder), Side("baseline", dtype, folder)
    a, b = harness.alternate(ours.measure, baseline.measure, ROUNDS)
    mine, theirs = harness.spread(a, "CPU s"), harness.spread(b, "CPU s")
    rate = max(ours.rates + baseline.rates)
    # Of the anchor only the matrix products go with the machine's rate.
    products = flop(cached=False)
    anchor = bar.anchor_s + products / rate - products / bar.anchor_rate
    figures = {
        "ours": mine,
        "baseline": {**theirs, "what": "keys at every step, norms in single operations"},
        "ratio": round(mine["median"] / theirs["median"], 4),
        "limit": round(1 / bar.times, 4),
        "of_limit": round(mine["median"] / theirs["median"] * bar.times, 3),
        "times_as_fast": round(theirs["median"] / mine["median"], 2),
        "floor_s": round(flop(cached=True) / rate, 3),
        "baseline_of_anchor": round(theirs["median"] / anchor, 2),
        "calibration": {"gemm_gflop_s": round(rate / 1e9, 1)},
    }
    return figures, ours.chunk(), baseline.chunk()


def main() -> None:
    """Both dtypes, one after the other."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        exact, chunk, expected = compare("fp32", Path(folder))
        rounded, *chunks = compare("bf16", Path(folder))
    exact["distance"] = golden.distance(chunk, expected)
    mine, theirs = (golden.distance(one, expected) for one in chunks)
    rounded |= {"distance": mine, "baseline_distance": theirs, "equal": mine <= 1.1 * theirs}
    harness.finish(
        {
            "benchmark": "sampler",
            "gflop": {"ours": flop(cached=True) / 1e9, "baseline": flop(cached=False) / 1e9},
            **exact,
            "equal": exact["distance"] <= 5e-6 and rounded["equal"],
            "bf16": rounded,
        },
        ["torch"],
        started,
    )


if __name__ == "__main__":
    main()
