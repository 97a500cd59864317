"""The waypoint recipe's graph with its measured durations, against the same steps one by one.

Graph and durations are those of the shipped recipe up to step 0 of the training, scaled so
that the best possible order takes a minute; each step sleeps that long.
Bars: within 1.05 of the lower bound, which is the longest way or the work of the scarcest
resource; 1.3 times as fast as one by one; 20 ms of the runner's own for each step.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness
from launcher.core import dag_ship
from launcher.core.dag import Graph, Step
from launcher.core.dag_files import BoxRun
from launcher.dag import load, resolve

BOUND_LIMIT, FASTER_LIMIT, STEP_LIMIT_MS = 1.05, 1.3, 20.0
BOUND_S = 62.0
STEP_0_S = 60.0
CHAIN = 100


def waypoint(folder: Path) -> Graph:
    """The shipped graph up to step 0 of the training, scaled so that its bound is BOUND_S.

    Every step sleeps, leaves a file, and fails when one that it needs has left none.
    """
    graph = resolve.resolve(load.load("openpi/waypoint-ae"), str(folder / "run"))
    steps = [step for step in graph.order() if "train" not in step.needs]
    takes = {step.name: step.expected_s for step in steps} | {"train": STEP_0_S}
    shaped = [_asleep(step, takes[step.name]) for step in steps]
    scale = BOUND_S / bound(shaped, graph.tokens)
    scaled = tuple(_asleep(step, step.expected_s * scale) for step in shaped)
    return Graph("waypoint", scaled, str(folder / "work"), graph.tokens)


def _asleep(step: Step, seconds: float) -> Step:
    proofs = "".join(f"test -f {need}; " for need in step.needs)
    return Step(
        step.name,
        script=f"{proofs}sleep {seconds:.3f}; touch {step.name}",
        needs=step.needs,
        resources=step.resources,
        outputs=(step.name,),
        expected_s=seconds,
    )


def bound(steps: Sequence[Step], tokens: Mapping[str, int]) -> float:
    """No order takes less: the longest way, or the work of a resource over its tokens."""
    longest = max(Graph("", tuple(steps), "", tokens).ways().values())
    work = [
        sum(step.expected_s * step.resources.get(name, 0) for step in steps) / count
        for name, count in tokens.items()
    ]
    return max(longest, *work)


class Side:
    """The runner with a graph in a new folder."""

    def __init__(self, graph: Graph, folder: Path) -> None:
        self.run = BoxRun(folder / "run")
        self.run.root.mkdir(parents=True)
        self.run.graph.write_text(json.dumps(graph.to_dict()))
        self.pyz = folder / "runner.pyz"
        dag_ship.write(self.pyz)

    def go(self) -> dict[str, Any]:
        """Run to the end; the last event, with the runner's CPU seconds (its steps' too)."""
        argv = [sys.executable, "-I", str(self.pyz), "run", str(self.run.root)]
        cpu = harness.child_cpu_seconds(argv)
        return {**self.run.told()[-1], "cpu": cpu}


def one_by_one(graph: Graph, folder: Path) -> float:
    """Seconds of the same commands in one shell, as somebody with the runbook would type them."""
    folder.mkdir(parents=True)
    script = "\n".join(step.script for step in graph.order())
    began = time.monotonic()
    subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, check=True)
    return time.monotonic() - began


def chain(folder: Path) -> dict[str, Any]:
    """Milliseconds of the runner's own for each step, of the first run and with nothing to do.

    The worst case: steps that do nothing and wait for each other. Starting the program is
    in the figure.
    """
    names = [f"s{number}" for number in range(CHAIN)]
    steps = [
        Step(name, argv=("true",), needs=(before,) if before else ())
        for name, before in zip(names, ["", *names], strict=False)
    ]
    side = Side(Graph("chain", tuple(steps), str(folder / "work")), folder)
    first, again = side.go(), side.go()
    assert (first["done"], again["skipped"]) == (CHAIN, CHAIN)
    return {
        "steps": CHAIN,
        "first_ms": round(1000 * first["seconds"] / CHAIN, 2),
        "first_cpu_ms": round(1000 * first["cpu"] / CHAIN, 2),
        "nothing_to_do_ms": round(1000 * again["seconds"] / CHAIN, 2),
        "limit_ms": STEP_LIMIT_MS,
        "of_limit": round(1000 * first["seconds"] / CHAIN / STEP_LIMIT_MS, 3),
    }


def main() -> None:
    """Alternate both sides, then measure what the runner itself takes."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder, number, again, equal = Path(temporary), iter(range(99)), [], []
        graph = waypoint(folder)
        names = {step.name for step in graph.steps}

        def ours() -> float:
            place = folder / f"ours{next(number)}"
            side = Side(waypoint(place), place)
            seconds = float(side.go()["seconds"])
            again.append(float(side.go()["seconds"]))
            equal.append({path.name for path in (place / "work").iterdir()} == names)
            return seconds

        def theirs() -> float:
            place = folder / f"theirs{next(number)}"
            seconds = one_by_one(graph, place)
            equal.append({path.name for path in place.iterdir()} == names)
            return seconds

        a, b = harness.alternate(ours, theirs, 2)
        own = chain(folder / "chain")
    mine, serial = harness.spread(a, "s"), harness.spread(b, "s")
    ratio = mine["median"] / serial["median"]
    harness.finish(
        {
            "benchmark": "recipes",
            "ours": mine,
            "baseline": {**serial, "what": "the same steps one by one in a shell"},
            "ratio": round(ratio, 3),
            "limit": round(1 / FASTER_LIMIT, 3),
            "of_limit": round(ratio * FASTER_LIMIT, 3),
            "times_as_fast": round(serial["median"] / mine["median"], 3),
            "of_bound": {
                "ratio": round(mine["median"] / BOUND_S, 4),
                "limit": BOUND_LIMIT,
                "of_limit": round(mine["median"] / BOUND_S / BOUND_LIMIT, 3),
            },
            "nothing_to_do": harness.spread(again, "s"),
            "own": own,
            "calibration": {"interpreter_start_cpu_s": harness.interpreter_start()},
            "baseline_of_anchor": round(
                serial["median"] / sum(step.expected_s for step in graph.steps), 3
            ),
            "equal": all(equal),
        },
        [],
        started,
    )


if __name__ == "__main__":
    main()
