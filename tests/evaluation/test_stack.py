"""A simulator that draws or settles differently is refused: with a real mujoco 3.17."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import diagnose
from launcher.core import files
from launcher.presets import JOB_ENVIRONMENT
from rdt.sim import probe
from tests.evaluation.test_exactness import EXPERT, ROOT, SHORT, new_run

pytestmark = [pytest.mark.sim, pytest.mark.slow]


@pytest.fixture(scope="module")
def wrong_stack(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of processes that find mujoco 3.17.0 before the pinned one."""
    folder = tmp_path_factory.mktemp("mujoco")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "-q", "--no-deps"),
            *("--target", str(folder), "mujoco==3.17.0"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        pytest.skip(f"no package index within reach: {done.stderr.strip()[-200:]}")
    return {**os.environ, **JOB_ENVIRONMENT, "PYTHONPATH": f"{folder}:{ROOT}"}


@pytest.mark.parametrize(("module", "workers"), [("jobs.evaluate", 1), ("jobs.workers", 2)])
def test_its_version_is_refused_before_any_episode(
    module: str, workers: int, wrong_stack: dict[str, str], tmp_path: Path
) -> None:
    run = new_run(tmp_path, SHORT, {**EXPERT, "workers": workers})
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, str(run.root)],
        env=wrong_stack,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "RDTL-E003: mujoco 3.17.0 is not the protocol's version 3.3.2" in done.stderr
    assert not list(run.records.glob("part-*"))


UNNOTICED = """
from rdt.sim import backend
backend.REQUIRED["mujoco"] = "3.17.0"
from jobs import evaluate
evaluate.run_job(evaluate.program)
"""


@pytest.mark.parametrize("index", [0, 1])
def test_every_task_looks_at_its_own_node(
    index: int, wrong_stack: dict[str, str], tmp_path: Path
) -> None:
    """With the version check told that all is well, and another node seen to be right before."""
    run = new_run(tmp_path / "run", SHORT, EXPERT)
    files.publish_once(run.records / "stack.json", [])
    place = {"RDTL_STAGE": "evaluate", "RDTL_INDEX": str(index), "RDTL_COUNT": "2"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", UNNOTICED, str(run.root)],
        env={**wrong_stack, **place, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3 and "RDTL-E001: floor 133" in done.stderr
    assert not list(run.records.glob("part-*")) and not list(tmp_path.rglob("probe/*"))


def test_what_robosuite_says_of_it_is_recognised(
    wrong_stack: dict[str, str], tmp_path: Path
) -> None:
    """Without us in between."""
    code = "import robosuite; robosuite.make('Lift', robots='Panda', has_renderer=False)"
    argv = [sys.executable, "-P", "-c", code]
    done = subprocess.run(argv, env=wrong_stack, capture_output=True, text=True, check=False)
    (tmp_path / "log").write_text(done.stderr)
    assert [found.code for found in diagnose.diagnose(tmp_path / "log")] == ["RDTL-E003"]


def test_the_probe_sees_what_a_version_number_may_hide(wrong_stack: dict[str, str]) -> None:
    """The same stack with the version check told that all is well."""
    code = (
        "import json; from rdt.sim import backend, probe; backend.REQUIRED['mujoco'] = '3.17.0';"
        "print(json.dumps([f.to_dict() for f in probe.probe()]))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=wrong_stack, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    floor, bowl = json.loads(done.stdout.splitlines()[-1])
    assert (floor["code"], floor["severity"]) == ("RDTL-E001", "error")
    red, green, blue = map(float, floor["what"].split(",")[0].split()[1].split("/"))
    assert (red, green, blue) == pytest.approx((133, 119, 107), abs=3)  # drawn darker
    assert (bowl["code"], bowl["severity"]) == ("RDTL-E002", "error")
    assert 30 < float(bowl["what"].split()[2]) < 90  # millimetres: it slid off


def test_the_pinned_stack_passes() -> None:
    assert [finding.severity for finding in probe.probe()] == ["ok", "ok"]
