"""What tests of several folders share: a real Slurm, and the image that jobs run in."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from launcher.images.store import BuiltImage
from tests import inside
from tests.road import small_demo

ROOT = Path(__file__).parent.parent

# By the clock of a machine that does other things too, or under coverage, a deadline says nothing.
settings.register_profile("rdtl", deadline=None)
settings.load_profile("rdtl")

# A shell starts what it puts in the background with Ctrl-C ignored, and so would be all commands
# that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


JOBS = ("cluster", "integration", "road", "status", "submit")
"""Folders whose tests share a cluster, an image and the demo that nobody disturbed."""
LONGEST = ("jobs", "images", "recipes", "cli", "sim", "staging", "data", "training", "providers")
"""Begun in this order: a long folder that is begun last leaves the other process idle."""


def folder_of(nodeid: str) -> str:
    """What one process runs as a whole: a folder of tests, those of JOBS together."""
    folder = nodeid.partition("::")[0].split("/")[1]
    return "jobs" if folder in JOBS else folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """``make test`` runs two folders at a time."""
    place = {folder: number for number, folder in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(folder_of(item.nodeid), len(place)))


class ByFolder(LoadScopeScheduling):
    """Keeps what tests of a folder share in one process."""

    def _split_scope(self, nodeid: str) -> str:
        return folder_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFolder:
    return ByFolder(config, log)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:  # CI is root
        pytest.skip("tmpfs cannot be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory whose site `minislurm` is a cluster of its own."""
    folder = tmp_path_factory.mktemp("slurm")
    with slurm_in(folder):
        yield folder


@contextlib.contextmanager
def slurm_in(folder: Path, *options_of_up: str) -> Iterator[None]:
    """A cluster of its own, which is the site `minislurm` of ``folder``."""
    root = tempfile.mkdtemp(prefix="rdtl-road-")  # socket paths must be short
    verb = [sys.executable, "-m", "tests.cluster.minislurm"]
    options = ["--root", root]
    try:
        subprocess.run([*verb, "up", *options, *options_of_up], cwd=ROOT, check=True, timeout=120)
        status = [*verb, "status", *options, "--json"]
        printed = subprocess.run(status, cwd=ROOT, check=True, capture_output=True, timeout=60)
        (folder / "configs" / "sites").mkdir(parents=True)
        site = json.loads(printed.stdout)["site"]
        shutil.copy(site, folder / "configs" / "sites" / "minislurm.yaml")
        yield
    finally:
        subprocess.run([*verb, "down", *options], cwd=ROOT, check=True, timeout=120)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def sif() -> BuiltImage:
    """The image that jobs run in; `.ci/run` builds it before the tests."""
    return inside.image()


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a small demo that nobody disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = small_demo.run(folder, "--runtime", "none")
    assert done.returncode == 0, done.stderr
    assert "95 % interval" in done.stdout
    return folder / "runs" / "demo-quick-local"
