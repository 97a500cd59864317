"""What all benchmarks share: alternating sides, calibration, one JSON object at the end.

A ratio counts only when both sides did the same work (``equal``) and the
baseline, corrected by this machine's speed, lies near the figure it was
measured to have elsewhere (``baseline_of_anchor`` within 0.7–1.4). A figure that has a bar has
an ``of_limit`` beside it: more than 1 is a miss.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
MISSED = 3
"""Exit code of a benchmark that measured, and missed a bar."""


def spread(values: list[float], unit: str) -> dict[str, Any]:
    """Median, minimum and maximum of repeated measurements."""
    return {
        "median": round(statistics.median(values), 4),
        "min": round(min(values), 4),
        "max": round(max(values), 4),
        "unit": unit,
        "runs": len(values),
    }


def child_cpu_seconds(argv: list[str], env: dict[str, str] | None = None) -> float:
    """User + system CPU seconds of one child process that must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def alternate(
    ours: Callable[[], float], baseline: Callable[[], float], rounds: int
) -> tuple[list[float], list[float]]:
    """Measure A B A B …: a drift of the machine's speed then meets both sides."""
    a, b = [], []
    for number in range(rounds):
        a.append(ours())
        b.append(baseline())
        print(f"round {number + 1}: ours {a[-1]:.3f}, baseline {b[-1]:.3f}", file=sys.stderr)
    return a, b


def environment(folder: Path, packages: Sequence[str]) -> None:
    """A virtual environment in ``folder`` with a baseline's packages, unless it is there."""
    done = folder / "made"
    if done.exists():
        return
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(folder / "bin/pip"), "install", "--quiet", *packages]
    subprocess.run(pip, check=True, stdout=subprocess.DEVNULL)
    done.write_text(" ".join(packages) + "\n")


def interpreter_start(rounds: int = 9) -> float:
    """Calibration: median CPU seconds of a bare interpreter start."""
    values = [child_cpu_seconds([sys.executable, "-I", "-S", "-c", "pass"]) for _ in range(rounds)]
    return statistics.median(values)


def machine() -> dict[str, Any]:
    """CPU model, cores, memory and load; no host name."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "cpu": cpu[0].split(":", 1)[1].strip() if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory) / 1e6),
        "load": round(os.getloadavg()[0], 1),
    }


def beyond(data: dict[str, Any], name: str) -> list[str]:
    """Figures that missed their bars, by their place in a result."""
    found = [f"{name}: {data['of_limit']} of its limit"] if data.get("of_limit", 0) > 1 else []
    parts = [(key, part) for key, part in data.items() if isinstance(part, dict)]
    return found + [each for key, part in parts for each in beyond(part, f"{name}.{key}")]


def finish(result: dict[str, Any], packages: list[str], started: float) -> None:
    """Complete the result, store it under benchmarks/results and print it as the last line.

    Exit 3 when a figure missed its bar or both sides did not do the same.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true", help="print the result only")
    parser.parse_args()
    name = result["benchmark"]
    result |= {
        "machine": machine(),
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in packages},
        "seconds": round(time.monotonic() - started, 1),
        "command": f"python -m benchmarks.{name} --json",
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
    print(json.dumps(result, sort_keys=True))
    missed = beyond(result, name) + ([] if result["equal"] else [f"{name}: the results differ"])
    if missed:
        print("\n".join(missed), file=sys.stderr)
        raise SystemExit(MISSED)
