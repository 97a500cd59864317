"""Making demonstrations of one task, each from its number and the settings alone."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rdt.sim import backend, demo_file
from rdt.sim.demonstration import find_run, replay
from rdt.sim.libero import Simulator


def settings(task: dict[str, Any], collect: dict[str, Any], seed: int) -> str:
    """Everything that a demonstration depends on, as canonical JSON."""
    relevant = {k: v for k, v in collect.items() if k not in ("demos", "shards")}
    parts = {"seed": seed, "task": task, "collect": relevant, "versions": backend.versions()}
    return json.dumps(parts, sort_keys=True)


class Collector:
    """Two simulators of the same task: a blind one that searches, a seeing one that records."""

    def __init__(self, task: dict[str, Any], collect: dict[str, Any], seed: int) -> None:
        self._collect, self._seed = collect, seed
        self._settings = settings(task, collect, seed)
        self._blind = Simulator(task, blind=True)
        self._seeing = Simulator(task, blind=False)

    def collect(self, number: int, path: Path, name: str) -> str:
        """Write demonstration ``number`` to ``path`` as /data/``name``; returns a line about it.

        Raises RdtlError RDTL-D040 when the expert never succeeds, OSError.
        """
        started = time.process_time()
        run = find_run(self._blind, self._collect, self._seed, number)
        searched = time.process_time()
        frames = replay(self._seeing, run, self._collect["render_every"])
        demo_file.write(path, name, self._seeing, run, frames, self._settings)
        return (
            f"{name}: initial state {run.init_state}, retry {run.retry}, {len(frames)} steps, "
            f"{searched - started:.1f} s CPU blind, {time.process_time() - searched:.1f} s rendered"
        )

    def close(self) -> None:
        """Free both simulators."""
        self._blind.close()
        self._seeing.close()
