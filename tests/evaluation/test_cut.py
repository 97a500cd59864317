"""Into how many tasks an evaluation is cut, and that it may be cut anew half-way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from launcher import presets, sizing
from launcher.core import files
from launcher.core.errors import RefusedError, UsageError
from launcher.core.plan import Plan
from launcher.core.runs import RunDir
from launcher.create import create
from launcher.schema import RunConfig
from launcher.sites import Site
from rdt.spec import card as cards
from rdt.spec import record as records
from tests.cli.run_rdtl import rdtl
from tests.evaluation.test_plan import run_config

ROOT = Path(__file__).parents[2]
HOLDS = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from launcher.core.runs import RunDir
from launcher.submit.local_backend import lock_run
held = lock_run(RunDir(Path(sys.argv[2])))
(Path(sys.argv[2]) / "held").touch()
time.sleep(600)
"""
"""Another launcher of the run."""
SUITES: dict[str, Any] = {"libero_spatial": [], "libero_10": []}


def count(site: dict[str, Any], **evaluate: Any) -> int:
    asked = {"policies": ["rdt"], "suites": SUITES, "init_states": (0, 50), "shards": "auto"}
    config = run_config(**{**asked, **evaluate}).model_dump(mode="json")
    return sizing.tasks(config, Site(**site))


def test_as_many_tasks_as_seconds_and_site_ask_for() -> None:
    cluster = {"kind": "slurm"}
    # 1,000 episodes of 30 s are 500 minutes, of which a task does 30.
    assert count(cluster, episode_seconds=30) == 17
    assert count({**cluster, "tasks_at_once": 8}, episode_seconds=30) == 8
    assert count({**cluster, "max_queued_tasks": 5}, episode_seconds=30) == 5
    assert count(cluster, episode_seconds=0.05) == 1
    assert count({"kind": "local", "cpus_per_node": 6}, episode_seconds=30) == 6
    assert count({"kind": "local", "cpus_per_node": 64}, episode_seconds=0.3) == 5
    hosts = {"kind": "hosts", "hosts": ["n1", {"host": "n2", "slots": 3, "exclude": [0]}]}
    assert count(hosts, episode_seconds=30) == 3
    assert count(cluster, shards=40) == 40


def test_an_estimate_grows_with_steps_and_looks() -> None:
    config = run_config(policies=["rdt"], suites=SUITES).model_dump(mode="json")
    policy = sizing.episode_seconds(config, "rdt", "libero_10")
    assert policy > sizing.episode_seconds(config, "rdt", "libero_spatial")
    assert policy > 3 * sizing.episode_seconds(config, "expert", "libero_10")
    often = {**config, "evaluate": {**config["evaluate"], "execution_horizon": 1}}
    assert sizing.episode_seconds(often, "rdt", "libero_10") > 5 * policy


def test_a_task_asks_for_the_memory_of_its_checkpoint(tmp_path: Path) -> None:
    """rdt-1b takes 4.9 GB in float32, whatever its file holds; Slurm ends what takes more."""
    encoders = {"vision": cards.SIGLIP, "language": cards.T5}
    card = tmp_path / "run/policy/card.json"
    files.write_json(card, {"encoders": encoders, "dtype": "bfloat16"})
    with (card.parent / "model.safetensors").open("wb") as handle:
        handle.truncate(2_456_755_578)
    (tmp_path / "words").mkdir()

    def memory(**evaluate: Any) -> int:
        config = run_config(**{"policies": ["rdt"], **evaluate}).model_dump(mode="json")
        return sizing.memory_mb(config)

    small = memory(checkpoint="hf://models/a/b")
    tested = {"checkpoint": str(tmp_path / "run"), "language": str(tmp_path / "words")}
    assert memory(**tested) - small == 4913 + 1750
    assert memory(**tested, policy_memory_mb=400) == small
    assert memory(**tested, workers=2) - memory(workers=2) == 4913 + 1750
    assert memory(**tested, workers=4, gpus=2) - memory(workers=4, gpus=2) == 2 * (4913 + 1750)


def plan_of(run: RunDir, **evaluate: Any) -> Plan:
    config: RunConfig = run_config(**{"policies": ["expert", "zero"], **evaluate})
    return presets.pipeline(config, "local", Site(kind="local"), run, None)


def test_only_the_number_of_tasks_may_change(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    first = create(run, plan_of(run, shards=4), "first")
    again = create(run, plan_of(run, shards=7), "second")
    assert [(s.name, s.array) for s in again.stages] == [
        ("evaluate-2", 7), ("videos-2", again.stages[1].array), ("report-2", 1),
    ]  # fmt: skip
    assert again.stages[2].needs == ("evaluate-2", "videos-2")
    assert create(run, plan_of(run, shards=7), "second") == again
    third = create(run, plan_of(run, shards=4), "third")
    assert third.stages[0].name == "evaluate-3" and third.stages[0].argv == first.stages[0].argv
    with pytest.raises(UsageError, match="RDTL-U013"):
        create(run, plan_of(run, shards=9, trials=2), "fourth")


def test_what_still_runs_is_not_cut(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    create(run, plan_of(run, shards=4), "first")
    run.ledger.publish("claim.evaluate.a1", indices=[0, 1, 2, 3], part_size=None)
    sleeper = subprocess.Popen([sys.executable, "-c", HOLDS, str(ROOT), str(run.root)])
    try:
        deadline = time.monotonic() + 60
        while not (run.root / "held").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(RefusedError, match=r"RDTL-E073[\s\S]*rdtl runs cancel"):
            create(run, plan_of(run, shards=7), "second")
    finally:
        sleeper.kill()
        sleeper.wait()
    assert create(run, plan_of(run, shards=7), "second").stages[0].array == 7


@pytest.mark.slow
@pytest.mark.sim
def test_an_interrupted_evaluation_goes_on_in_more_tasks(tmp_path: Path) -> None:
    """Killed with its launcher after some results; what has a result is not run again."""
    settings = ["evaluate.init_states=[0,6]", "evaluate.policies=[zero]", "evaluate.videos=0"]
    words = ["evaluate", "demo", "--runtime", "none", "--jobs", "1", "--set", "task.max_steps=60"]
    words += [word for setting in settings for word in ("--set", setting)]
    argv = [sys.executable, "-P", "-m", "launcher", *words, "--shards", "1"]
    process = subprocess.Popen(argv, cwd=tmp_path)
    run = RunDir(tmp_path / "runs" / "evaluate-demo-local")
    deadline = time.monotonic() + 400
    while len(records.read_lines(run.records) if run.records.exists() else []) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = rdtl(*words, "--shards", "3", cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "0/6" in done.stdout
    lines = records.read_lines(run.records)
    assert len(lines) == len({line.key for line in lines}) == 6
    assert {line.shard for line in lines} >= {1, 2}


@pytest.mark.slow
@pytest.mark.sim
def test_videos_and_page_are_made_again_once_a_failed_task_is_done(tmp_path: Path) -> None:
    """The kernel killed a task, the rest was shown, and the same command then ran what was left."""
    settings = ["evaluate.init_states=[0,4]", "evaluate.policies=[zero]", "task.max_steps=6"]
    words = ["evaluate", "demo", "--runtime", "none", "--jobs", "1", "--shards", "2"]
    words += [word for setting in settings for word in ("--set", setting)]
    run = RunDir(tmp_path / "runs" / "evaluate-demo-local")
    argv = [sys.executable, "-P", "-m", "launcher", *words]
    with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.DEVNULL) as launcher:
        job = _job_of_task(1, run, launcher)
        os.kill(job, signal.SIGKILL)
        assert launcher.wait(timeout=600) == 1
    assert _shown(run) == {"zero-libero_object-t0-i0-n0", "zero-libero_object-t0-i1-n0"}
    page = run.report / "index.html"
    assert "0 of 2 episodes" in page.read_text().replace("\xa0", " ")
    done = rdtl(*words, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr
    assert _shown(run) == {f"zero-libero_object-t0-i{state}-n0" for state in range(4)}
    assert "0 of 4 episodes" in page.read_text().replace("\xa0", " ")
    again = rdtl(*words, cwd=tmp_path)
    assert again.returncode == 0 and run.ledger.attempts("videos") == [1, 2], "nothing is new"


def _job_of_task(index: int, run: RunDir, launcher: subprocess.Popen[bytes]) -> int:
    """Process id of the program of this task, as soon as it is there."""
    deadline = time.monotonic() + 400
    while True:
        assert launcher.poll() is None and time.monotonic() < deadline
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                told = path.read_bytes()
                if b"jobs.evaluate" not in told or str(run.root).encode() not in told:
                    continue
                if f"RDTL_INDEX={index}\0".encode() in (path.parent / "environ").read_bytes():
                    return int(path.parent.name)
        time.sleep(0.05)


def _shown(run: RunDir) -> set[str]:
    """Episodes in the index of videos."""
    paths = run.videos.glob("index.*.json")
    return {entry["key"] for path in paths for entry in files.read_json(path)}
