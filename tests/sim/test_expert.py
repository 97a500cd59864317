"""The scripted experts, judged by the simulator alone."""

from typing import Any

import pytest

from launcher.core.errors import UsageError
from rdt.sim.expert import expert
from rdt.sim.libero import Simulator

pytestmark = pytest.mark.sim
LIMIT = {"libero_object": 280, "libero_spatial": 220}


def _simulator(task: dict[str, Any], suite: str, task_id: int) -> Simulator:
    return Simulator({**task, "suite": suite, "task_id": task_id}, blind=True)


def _steps(simulator: Simulator, init_state: int, limit: int) -> int | None:
    """Control steps to success, None when it takes more than ``limit``."""
    simulator.reset(init_state)
    for step, action in enumerate(expert(simulator), start=1):
        if simulator.step(action):
            return step
        if step == limit:
            return None
    return None


def _successes(task: dict[str, Any], suite: str) -> list[int]:
    """How many of initial states 0 to 4 succeed within the published limit, task by task."""
    found = []
    for task_id in range(10):
        simulator = _simulator(task, suite, task_id)
        found.append(sum(_steps(simulator, i, LIMIT[suite]) is not None for i in range(5)))
        simulator.close()
    return found


@pytest.mark.slow
def test_a_bowl_comes_out_of_the_drawer_onto_the_plate(task: dict[str, Any]) -> None:
    """Where most of the rim stands below the cabinet's edge or close to the drawer's walls."""
    simulator = _simulator(task, "libero_spatial", 4)
    steps = _steps(simulator, 3, LIMIT["libero_spatial"])
    simulator.close()
    assert steps is not None and 80 < steps < 170


def test_what_it_cannot_do_is_said(task: dict[str, Any]) -> None:
    drawer = _simulator(task, "libero_goal", 0)
    with pytest.raises(UsageError, match="RDTL-U023") as caught:
        next(expert(drawer))
    drawer.close()
    assert "open_the_middle_drawer" in caught.value.problem.what


@pytest.mark.slow
def test_spatial(task: dict[str, Any]) -> None:
    """50 of 50 were seen."""
    found = _successes(task, "libero_spatial")
    assert sum(found) >= 45, found


@pytest.mark.slow
def test_object(task: dict[str, Any]) -> None:
    """47 of 50 were seen: flat cream cheese slips away in three."""
    found = _successes(task, "libero_object")
    assert sum(found) >= 45, found
