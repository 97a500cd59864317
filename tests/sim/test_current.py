"""Several simulators in one process draw what each draws alone."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from rdt.sim.libero import Simulator

pytestmark = pytest.mark.sim
ACTION = np.array([0.5, -0.3, -0.4, 0.1, 0.0, 0.2, 1.0], np.float32)


def one_step(simulator: Simulator) -> list[np.ndarray]:
    simulator.step(ACTION, render=True)
    return [*simulator.observation().pictures.values()]


@pytest.mark.slow
def test_a_second_renderer_and_the_end_of_a_forgotten_one(
    seeing: Simulator, task: dict[str, Any]
) -> None:
    seeing.reset(1)
    seeing.reset(1)  # this one keeps the context of the one before
    alone = [one_step(seeing) for _ in range(3)]
    other = Simulator({**task, "task_id": 1, "camera_size": 64}, blind=False)
    other.reset(1)
    seeing.reset(1)
    one_step(other)  # drawn between
    found = [one_step(seeing)]
    one_step(other)
    found.append(one_step(seeing))
    del other  # without a word, as a program does that goes on to another task
    gc.collect()
    found.append(one_step(seeing))
    for ours, theirs in zip(found, alone, strict=True):
        for picture, expected in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(picture, expected)
