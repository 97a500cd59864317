"""Demonstrations that are really collected, once, and their copies in the published layouts."""

import os

# Read while mujoco is imported, hence before anything of rdt.sim.
os.environ.update(
    MUJOCO_GL="osmesa", PYOPENGL_PLATFORM="osmesa", LP_NUM_THREADS="0", OMP_NUM_THREADS="1"
)

from pathlib import Path

import pytest

from launcher.core import files
from launcher.core.job import Job
from launcher.core.runs import RunDir
from launcher.schema import Collect, RunConfig, Task
from tests.data import writers


@pytest.fixture(scope="session")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two demonstrations of libero_object task 0 by the scripted expert, each eighth step with a
    new picture of 64 pixels (rendering is what costs), collected and merged as by `rdtl`."""
    from jobs import collect, dataset

    run = RunDir(tmp_path_factory.mktemp("collected"))
    config = RunConfig(
        name="test",
        task=Task(camera_size=64),
        collect=Collect(demos=2, render_every=8, shards=1),
    ).model_dump(mode="json")
    files.write_json(run.plan, {"config": config})
    job = Job(run, config, "collect", 0, 1, attempt=0, node=0)
    collect.body(job)
    return dataset.find_or_merge(job)


@pytest.fixture(scope="session")
def demos(collected: Path) -> list[writers.Demo]:
    """The same in memory, read with h5py alone."""
    return writers.load(collected)


@pytest.fixture(scope="session")
def rlds(demos: list[writers.Demo], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An RLDS copy: two shards, JPEG of quality 95, an odd name."""
    folder = tmp_path_factory.mktemp("rlds") / "libero_object_no_noops/1.0.0"
    return writers.write_rlds([writers.rlds_episode(demo) for demo in demos], folder)


@pytest.fixture(scope="session")
def lerobot2(demos: list[writers.Demo], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LeRobot 2.1 copy: PNG in a parquet file per episode."""
    return writers.write_lerobot2(demos, tmp_path_factory.mktemp("lerobot2"))


@pytest.fixture(scope="session")
def lerobot3(demos: list[writers.Demo], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LeRobot 3.0 copy: one parquet file, one lossless video per camera."""
    return writers.write_lerobot3(demos, tmp_path_factory.mktemp("lerobot3"))
