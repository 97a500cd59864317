"""Recipes inside jobs of a real Slurm."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.cli.run_rdtl import rdtl

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts Slurm in network namespaces: needs root"),
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="Slurm is not installed"),
]
CANARY = "canary_71ab3f90cd"


class Job:
    """A recipe of two steps for the test cluster."""

    def __init__(self, cluster: Path, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.work = cluster / f"work-{name}"
        self.work.mkdir()
        self.env = {"TOKEN": CANARY, "XDG_STATE_HOME": str(cluster / "state")}
        steps = {
            "one": {
                "script": 'echo x >> one.runs; hostname > "$work/where"',
                "outputs": ["where"],
                "verify": {"cheap": "test -s where"},
            },
            "two": {
                "needs": ["one"],
                "script": 'echo x >> two.runs; printf %s "$TOKEN" | wc -c > size\n'
                "until [ -e go ]; do echo step=1; sleep 0.1; done",
                "secrets": ["TOKEN"],
                "verify": {"cheap": 'test "$(cat size)" = 17'},
            },
        }
        made = {"name": "job", "about": "a test", "steps": steps, "secrets": {"TOKEN": "t"}}
        parameters = {"work": {"about": "folder", "default": str(self.work)}}
        (cluster / f"{name}.yaml").write_text(
            yaml.safe_dump({**made, "parameters": parameters, "working_directory": "${work}"})
        )

    def words(self, *more: str) -> list[str]:
        own = ["recipe", "run", f"{self.name}.yaml", "--site", "minislurm", "--name", self.name]
        return [*own, *more]

    def begin(self, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "launcher", *self.words(*more)], cwd=self.cluster,
            env={**os.environ, **self.env}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self) -> subprocess.CompletedProcess[str]:
        return rdtl(*self.words("--json"), cwd=self.cluster, env=self.env, timeout=180)

    def count(self, step: str) -> int:
        path = self.work / f"{step}.runs"
        return len(path.read_text().split()) if path.exists() else 0

    def wait_for(self, step: str, times: int = 1, limit: float = 60) -> None:
        deadline = time.monotonic() + limit
        while self.count(step) < times:
            assert time.monotonic() < deadline, f"{step} began {self.count(step)} times"
            time.sleep(0.1)

    def let_go(self) -> None:
        (self.work / "go").touch()

    def runner(self) -> int:
        """Process id of the runner on its node (all nodes share this machine's processes)."""
        where = self.cluster / "runs" / f"{self.name}-minislurm" / "recipe" / "runner.json"
        return int(json.loads(where.read_text())["process"]["pid"])


def test_a_killed_client_comes_back_to_the_same_job(cluster: Path) -> None:
    job = Job(cluster, "back")
    client = job.begin()
    job.wait_for("two")
    client.kill()
    client.communicate()
    job.let_go()
    done = job.run()
    assert done.returncode == 0, done.stderr
    assert (job.count("one"), job.count("two")) == (1, 1)
    assert (job.work / "where").read_text().startswith("n")
    for path in (path for path in cluster.rglob("*") if path.is_file()):
        assert CANARY.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_a_runner_that_is_killed_goes_on_in_the_next_job(cluster: Path) -> None:
    job = Job(cluster, "killed")
    client = job.begin()
    job.wait_for("two")
    os.kill(job.runner(), signal.SIGKILL)
    _, err = client.communicate(timeout=120)
    assert client.returncode == 1, err
    job.let_go()
    done = job.run()
    assert done.returncode == 0, done.stderr
    states = {n: s["state"] for n, s in json.loads(done.stdout)["steps"].items()}
    assert states == {"one": "skipped", "two": "done"}
    assert (job.count("one"), job.count("two")) == (1, 2)


@pytest.mark.slow
def test_at_its_time_limit_a_job_starts_again_and_goes_on(cluster: Path) -> None:
    job = Job(cluster, "limit")
    client = job.begin("--minutes", "2")
    job.wait_for("two")
    job.wait_for("two", times=2, limit=240)
    job.let_go()
    _, err = client.communicate(timeout=180)
    assert client.returncode == 0, err
    assert (job.count("one"), job.count("two")) == (1, 2)
