"""``python -m tests.evaluation.hanging RUN HOW``: the evaluation job on a simulator that costs
nothing. Its episodes with initial state 1 never come back, or end all, in the way that is named;
`look`: the look before them is what never comes back."""

from __future__ import annotations

import collections
import ctypes
import itertools
import os
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from jobs import book, evaluate
from launcher.core.job import run_job
from rdt.sim import backend, probe, sequential

STEP_S = 0.05


def asleep() -> None:
    """Like a driver that waits for ever: in C, with Python's lock."""
    ctypes.PyDLL(None).sleep(600)


def busy() -> None:
    """Like a library that loops for ever: in C, with Python's lock, and it hears no signal."""
    collections.deque(itertools.repeat(0), maxlen=0)


WAYS: dict[str, Callable[[], None]] = {
    "asleep": asleep, "busy": busy, "crashes": os.abort, "well": lambda: None,
}  # fmt: skip


class Simulator:
    """What an episode asks of one."""

    renders, fixtures_sha256 = 0, ""

    def __init__(self, task: dict[str, Any], blind: bool, cameras: object) -> None:
        self.task, self._state = task, 0

    def reset(self, state: int) -> None:
        """Begin an episode."""
        self._state = state

    def observation(self) -> None:
        """Nobody looks."""

    def step(self, action: object, render: bool) -> bool:
        """Never successful, and with one initial state never over."""
        time.sleep(STEP_S)
        if self._state == 1:
            WAYS[sys.argv[2]]()
        return False

    def state_sha256(self) -> str:
        """No state."""
        return ""

    def close(self) -> None:
        """Nothing is held."""


if __name__ == "__main__":
    sequential.Simulator = Simulator  # type: ignore[assignment,misc]
    backend.prepare = lambda: None  # without LIBERO it starts in a second
    backend.versions = lambda: backend.REQUIRED
    book.find_task = lambda suite, number: SimpleNamespace(name=suite)  # type: ignore[assignment]
    if sys.argv[2] == "look":
        probe.probe = asleep  # type: ignore[assignment]
        evaluate.LOOK_S = 1.0
        run_job(evaluate.prove)
    run_job(evaluate.body)
