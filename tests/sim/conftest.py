"""One blind and one seeing simulator for all tests: building them is what costs."""

import os

# Read while mujoco is imported, hence before anything of rdt.sim.
os.environ.update(
    MUJOCO_GL="osmesa", PYOPENGL_PLATFORM="osmesa", LP_NUM_THREADS="0", OMP_NUM_THREADS="1"
)

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.core import files
from launcher.core.job import Job
from launcher.core.runs import RunDir
from launcher.schema import Collect, Evaluate, RunConfig, Task
from rdt.sim.libero import Simulator

SIZE = 256
TASK: dict[str, Any] = Task(camera_size=SIZE).model_dump(mode="json")


@pytest.fixture(scope="session")
def task() -> dict[str, Any]:
    """libero_object task 0 with 256-pixel pictures."""
    return dict(TASK)


@pytest.fixture(scope="session")
def blind() -> Iterator[Simulator]:
    simulator = Simulator(TASK, blind=True)
    yield simulator
    simulator.close()


@pytest.fixture(scope="session")
def seeing() -> Iterator[Simulator]:
    simulator = Simulator(TASK, blind=False)
    yield simulator
    simulator.close()


@pytest.fixture(scope="session")
def config() -> Callable[..., dict[str, Any]]:
    """Builds a resolved configuration; episodes end after ``max_steps``."""

    def build(
        max_steps: int = 280, collect: dict[str, Any] | None = None, **evaluate: Any
    ) -> dict[str, Any]:
        return RunConfig(
            name="test",
            task=Task(camera_size=SIZE, max_steps=max_steps),
            collect=None if collect is None else Collect(**collect),
            evaluate=Evaluate(**evaluate),
        ).model_dump(mode="json")

    return build


def lender(simulator: Simulator) -> Callable[[dict[str, Any]], Simulator]:
    """The session's simulator under the task of a job."""

    def borrow(task: dict[str, Any]) -> Simulator:
        lent = object.__new__(Simulator)
        lent.__dict__.update(simulator.__dict__, task=task, close=lambda: None)
        return lent

    return borrow


@pytest.fixture(scope="session")
def make_job() -> Callable[..., Job]:
    """Builds the job of one array task as ``jobs.node`` would."""

    def build(root: Path, config: dict[str, Any], index: int = 0, count: int = 1) -> Job:
        run = RunDir(root)
        files.write_json(run.plan, {"config": config})
        return Job(run, config, "stage", index, count, attempt=0, node=0)

    return build
