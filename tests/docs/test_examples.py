"""The examples do what they say: the script stops and goes on, the configurations are whole."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from launcher.schema import RunConfig
from tests.cli.run_rdtl import rdtl
from tests.docs.blocks import ROOT
from tests.rdt import small_policy

EXAMPLES = ROOT / "examples"
CONFIGURATIONS = ["horizons.yaml", "one-task.yaml", "own-data.yaml"]


def fit(folder: Path, *options: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "RDTL_RUN_DIR": str(folder), "RANK": "1", "WORLD_SIZE": "4"}
    command = [sys.executable, EXAMPLES / "fit.py", *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("told", "status"), [(signal.SIGUSR2, 85), (signal.SIGTERM, 86)])
def test_the_script_saves_when_it_is_told_and_ends_in_the_same_numbers(
    told: signal.Signals, status: int, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    with fit(whole) as undisturbed:
        assert undisturbed.wait(timeout=60) == 0
    with fit(cut, "--pause", "0.05") as stopped:
        assert stopped.stdout is not None
        assert stopped.stdout.readline() == "rank 1 of 4: from step 0\n"
        stopped.send_signal(told)
        assert stopped.wait(timeout=60) == status
    saved = json.loads((cut / "fit-1.json").read_text())["step"]
    assert 0 < saved < 200
    with fit(cut) as continued:
        assert continued.communicate(timeout=60)[0].startswith(f"rank 1 of 4: from step {saved}\n")
    ended = [json.loads((folder / "fit-1.json").read_text()) for folder in (whole, cut)]
    assert ended[0] == ended[1]
    assert ended[0]["a"] == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_has_only_keys_that_exist(name: str) -> None:
    assert RunConfig(**yaml.safe_load((EXAMPLES / name).read_text())).name == name[:-5]


@pytest.mark.slow
@pytest.mark.sim
def test_the_one_task_is_solved_by_the_expert_and_not_by_standing_still(tmp_path: Path) -> None:
    words = ["evaluate", str(EXAMPLES / "one-task.yaml"), "--json"]
    done = rdtl(*words, "--set", "task.max_steps=230", cwd=tmp_path, timeout=900)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "runs" / "one-task-local" / "report" / "summary.csv").read_text()
    solved = {row["policy"]: row["successes"] for row in csv.DictReader(table.splitlines())}
    assert solved == {"expert": "2", "zero": "0"}


@pytest.mark.slow
@pytest.mark.train
def test_the_sweep_has_a_cell_for_each_horizon(tmp_path: Path) -> None:
    policy = small_policy.trained_folder(tmp_path)
    words = ["sweep", str(EXAMPLES / "horizons.yaml"), "--checkpoint", str(policy)]
    done = rdtl(*words, "--horizons", "2,4", "--dry-run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["plan"]["config"]["sweep"]["horizons"]) == 2
