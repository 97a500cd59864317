"""What a command may take is adopted when its run is continued; on how many ranks is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher import presets
from launcher.core import plan
from launcher.core.errors import RefusedError, UsageError
from launcher.core.plan import Plan
from launcher.core.runs import RunDir
from launcher.create import create
from launcher.drive import Driver
from launcher.regroup import adopt
from launcher.sites import Site
from launcher.submit.local_backend import LocalBackend
from tests.cli.run_rdtl import rdtl


def made(run: RunDir, **asked: Any) -> Plan:
    site = Site(kind="slurm", nodes=8, gpus_per_node=4, max_memory_per_node_mb=100_000)
    shape = {"nodes": 1, "gpus": 2, "per_gpu": False, "minutes": 60, "memory_gb": 1.0}
    return presets.command(
        ["/bin/sleep", "60"], "s", site, run, None, working_directory=run.root, **(shape | asked)
    )


def test_a_longer_limit_is_there_in_the_next_attempt(tmp_path: Path) -> None:
    again = ("run", "--name", "a", "--", "test", "-e", "ready")
    limits = ("--minutes", "600", "--memory-gb", "1.5")
    assert rdtl(*again, cwd=tmp_path).returncode == 1
    (tmp_path / "ready").touch()
    run = RunDir(tmp_path / "runs/a-local")
    more = rdtl("run", *limits, *again[1:], cwd=tmp_path)
    assert "goes on with minutes 600; it was 60\n" in more.stderr, more.stderr
    assert "goes on with memory_mb 1500; it was 1000\n" in more.stderr
    assert more.returncode == 0
    (stage,) = plan.read(run.plan).stages
    assert (stage.minutes, stage.memory_mb) == (600, 1500)
    assert run.ledger.attempts("run") == [1, 2]
    moved = (run.ledger.read("moved.run.1") or {})["changed"]
    assert moved == {"minutes": [60, 600], "memory_mb": [1000, 1500]}
    done = rdtl(*again, cwd=tmp_path)
    assert (done.returncode, "goes on" in done.stderr) == (0, False), "there is nothing left to do"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"nodes": 2}, "nodes: 1 there, 2 now"),
        ({"gpus": 4}, "gpus: 2 there, 4 now"),
        ({"per_gpu": True}, "per: 'node' there, 'gpu' now"),
        ({"gpus": 4, "minutes": 600}, "gpus: 2 there, 4 now"),
    ],
)
def test_on_how_many_ranks_it_runs_stays(asked: dict[str, Any], said: str, tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    old = create(run, made(run), "")
    with pytest.raises(UsageError, match="RDTL-U013") as caught:
        create(run, made(run, **asked), "")
    assert caught.value.problem.where == f"{tmp_path}: {said}"
    assert "--name OTHER" in caught.value.problem.fix
    assert plan.read(run.plan) == old


def test_limits_change_only_while_nothing_is_alive(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    old, new = made(run, gpus=0), made(run, gpus=0, minutes=600)
    assert create(run, old, "") == old
    assert create(run, new, "") == old, "nothing changes before it is known what is alive"
    backend = LocalBackend(run, Site(kind="local"), 1)
    driver = Driver(run, old, backend)
    driver.adopt()
    driver.submit_ready(driver.look())
    try:
        with pytest.raises(RefusedError, match="RDTL-T068") as caught:
            adopt(run, old, new, "", backend)
        assert "minutes: 60 there, 600 now" in caught.value.problem.where
        assert adopt(run, old, old, "", backend) == old, "the command as it was goes on watching"
        assert plan.read(run.plan) == old
    finally:
        driver.cancel()
    elsewhere = replace(new.stages[0], working_directory="/elsewhere")
    assert adopt(run, old, replace(new, stages=(elsewhere,)), "", backend) == new
    assert plan.read(run.plan) == new
