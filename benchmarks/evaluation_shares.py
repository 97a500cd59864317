"""Where the CPU seconds of evaluated episodes go: ``python -m benchmarks.evaluation_shares N RUN``.

N + 1 episodes of 130 steps with a policy that sees and costs nothing, as a task of an array runs
them, records and all; the first, which builds the simulator, is left out. ``reset`` is the
simulator's own, ``outside`` what is left when physics, rendering, policy and reset are taken away.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import evaluation_job
from benchmarks.evaluation_side import SIZE, Waves
from jobs import evaluated
from rdt.sim.lazy import LazyCameras
from rdt.sim.libero import Simulator

SPENT: Any = Counter()
_running: list[str] = []


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, its CPU seconds booked under ``name`` and not under its caller's."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        _running.append(name)
        try:
            return function(*args, **kwargs)
        finally:
            _running.pop()
            spent = time.process_time() - began
            SPENT[name] += spent
            if _running:
                SPENT[_running[-1]] -= spent

    return wrapper


def watch() -> None:
    """Book physics, rendering, resets and policy of every simulator built from now on."""
    build, lazy = Simulator._build, LazyCameras._lazy

    def watched(simulator: Simulator) -> Any:
        env = build(simulator)
        env.step = timed("physics", env.step)
        env.set_init_state = timed("physics", env.set_init_state)
        env.env.reset = timed("reset", env.env.reset)
        return env

    def drawn(cameras: LazyCameras, sensor: Any) -> Any:
        slow = timed("rendering", sensor)
        slow.__dict__.update(sensor.__dict__)
        return lazy(cameras, slow)

    Simulator._build = watched  # type: ignore[method-assign, assignment]
    LazyCameras._lazy = drawn  # type: ignore[method-assign, assignment]
    Waves.chunk = timed("policy", Waves.chunk)  # type: ignore[method-assign]


def main(count: str, folder: str) -> None:
    """Print the shares."""
    watch()
    policy = Waves()
    evaluated.load = lambda job, name, shared=None: lambda suite, task_id: policy
    first, *_, last = evaluation_job.run(
        Path(folder),
        {"camera_size": SIZE, "max_steps": 130},
        note=lambda: {"spent": Counter(SPENT)},
        policies=["zero"],
        suites={"libero_object": [0]},
        init_states=(0, int(count) + 1),
    )
    total = last["cpu_s"] - first["cpu_s"]
    spent = {name: seconds - first["spent"][name] for name, seconds in last["spent"].items()}
    shares = {name: round(seconds / total, 4) for name, seconds in sorted(spent.items())}
    print(json.dumps({**shares, "outside": round(1 - sum(spent.values()) / total, 4)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
