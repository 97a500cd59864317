"""A worker that runs for days: what an episode takes, it gives back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import evaluate, evaluated
from rdt.policy.references import STILL
from rdt.sim.sequential import Simulators
from rdt.spec.record import EpisodeKey

pytestmark = [pytest.mark.sim, pytest.mark.slow]


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Watching:
    """Looks and stands still; notes memory and descriptors after every reset."""

    sees = sees_previous = True

    def __init__(self) -> None:
        self.noted: list[tuple[float, int]] = []

    def begin(self, simulator: Any, key: Any) -> None:
        self.noted.append((resident_mb(), sum(1 for _ in Path("/proc/self/fd").iterdir())))

    def chunk(self, observation: Any, query: int) -> np.ndarray:
        return STILL[None]


def test_memory_and_descriptors_stay_flat_over_200_episodes(
    tmp_path: Path,
    config: Callable[..., dict[str, Any]],
    make_job: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = Watching()
    monkeypatch.setattr(evaluated, "load", lambda *asked: lambda suite, task_id: policy)
    episodes = config(max_steps=1, policies=["zero"], init_states=(0, 50), trials=4)
    evaluate.body(make_job(tmp_path, episodes))
    assert len(policy.noted) == 200
    memory, descriptors = zip(*policy.noted[20:], strict=True)
    assert set(descriptors) == {descriptors[0]}
    assert max(memory) - memory[0] < 20, f"{memory[0]:.0f} MB grew to {max(memory):.0f}"


def test_the_next_task_takes_the_memory_of_the_last(config: Callable[..., dict[str, Any]]) -> None:
    """A kept model is a quarter of a gigabyte, twice; a worker sees up to 130 tasks."""
    simulators = Simulators(config(suites={"libero_object": [0, 1]}, init_states=(0, 2)))
    memory = []
    for task_id in (0, 1):
        for state in (0, 1):
            key = EpisodeKey("zero", "libero_object", task_id, state, 0)
            simulators.of(key, blind=False).reset(state)
        memory.append(resident_mb())
    simulators.discard()
    assert memory[1] - memory[0] < 300, memory
