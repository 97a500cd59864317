"""A run on a test cluster, and hands on both: what tests of faults and of limits share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from launcher.core import files
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.core.runtimes import Bind
from launcher.submit.slurm import job_prefix
from tests import inside
from tests.cluster import layout

ROOT = Path(__file__).parent.parent.parent
NEEDS = [
    pytest.mark.slurm,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts Slurm in network namespaces: needs root"),
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="Slurm is not installed"),
]
"""Marks of a module whose tests use a real cluster."""
ONCE = {"a.0": 1, "a.1": 1, "b.0": 1}
"""What a run of ``stage(array=2)`` and ``stage("b", needs="a")`` must have run."""


class Bench:
    """A run on the test cluster, and hands on both."""

    def __init__(self, folder: Path, cluster: Path, stages: list[Stage], **site: object) -> None:
        self.run = RunDir(folder / "run")
        for name in ("jobs", "launcher"):
            shutil.copytree(ROOT / name, self.run.code / name)
        settings = yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text()) | site
        self.site_file = folder / "site.yaml"
        self.site_file.write_text(yaml.safe_dump(settings))
        self.environment = {**os.environ, **settings["environment"]}
        root = str(self.run.root)
        image = inside.container(Bind(root, root, read_only=False))
        placed = tuple(replace(stage, container=image) for stage in stages)
        files.write_json(self.run.plan, Plan("faults", "minislurm", placed, {}).to_dict())

    def start(self, moment: str = "", path: str = "") -> subprocess.Popen[str]:
        """Start a launcher; ``path`` is searched first for programs."""
        environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}".removeprefix(":")}
        argv = ["-m", "tests.integration.drive_run", str(self.run.root), str(self.site_file)]
        return subprocess.Popen(
            [sys.executable, *argv, *([moment] if moment else [])],
            cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def slurm(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout.strip()

    def jobs(self) -> list[str]:
        """Ids of all jobs of this run that the controller remembers, ended ones too."""
        lines = self.slurm("squeue", "--states=all", "-h", "-o", "%F|%j").splitlines()
        prefix = job_prefix(self.run)
        return sorted(
            {line.split("|")[0] for line in lines if line.split("|")[1].startswith(prefix)}
        )

    def ran(self) -> dict[str, int]:
        """How often each task ran."""
        path = self.run.root / "ran"
        return dict(sorted(Counter(path.read_text().split()).items())) if path.exists() else {}

    def wait(self, moment: Callable[[], object], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not moment():
            assert time.monotonic() < end, "the moment never came"
            time.sleep(0.05)


def stage(name: str = "a", array: int = 1, then: str = "true", needs: str = "") -> Stage:
    """A stage whose tasks note that they ran, then do ``then`` in the run directory."""
    note = f'echo "$RDTL_STAGE.$RDTL_INDEX" >> ran; {then}'
    argv = ("sh", "-c", note)
    return Stage(name, argv, tuple(needs), array=array, memory_mb=100, own_code=False)


def ends_well(launcher: subprocess.Popen[str], seconds: float = 90) -> str:
    """What a launcher said that must succeed."""
    said = launcher.communicate(timeout=seconds)[1]
    assert launcher.returncode == 0, said
    return said


def ends_badly(launcher: subprocess.Popen[str], seconds: float = 60) -> str:
    said = launcher.communicate(timeout=seconds)[1]
    assert launcher.returncode not in (0, -signal.SIGKILL), said
    return said


def controller_of(cluster: Path) -> layout.Cluster:
    site = yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text())
    found = layout.load(Path(site["environment"]["SLURM_CONF"]).parent.parent)
    assert found
    return found[0]
