"""However the work is cut, shuffled, killed and resumed: the same records, each once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.core import files
from launcher.core.runs import RunDir
from launcher.presets import JOB_ENVIRONMENT
from rdt.spec import planned
from rdt.spec import record as records
from tests.evaluation.test_plan import run_config

pytestmark = [pytest.mark.sim, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
WHO_AND_WHEN = ("wall_s", "policy_s", "shard", "host", "attempt")
EXPERT: dict[str, Any] = {
    "policies": ["expert"],
    "suites": {"libero_object": [0], "libero_goal": [8]},
    "init_states": (0, 3),
}
SHORT = {"max_steps": 30, "camera_size": 64}


def new_run(root: Path, task: dict[str, Any], evaluate: dict[str, Any]) -> RunDir:
    """A run directory with a plan, as the launcher leaves it."""
    run = RunDir(root)
    config = run_config(task, **evaluate).model_dump(mode="json")
    files.write_json(run.plan, {"config": config})
    return run


def start(run: RunDir, index: int, count: int) -> subprocess.Popen[bytes]:
    """One task of an array, as jobs.node starts it."""
    place = {"RDTL_STAGE": "evaluate", "RDTL_INDEX": str(index), "RDTL_COUNT": str(count)}
    environment = {**os.environ, **JOB_ENVIRONMENT, **place, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-P", "-c", "from jobs import evaluate as e; e.run_job(e.body)", run.root],
        env=environment,
        stdout=subprocess.DEVNULL,
    )


def finish(run: RunDir, count: int, seed: int) -> None:
    """All tasks of an array one after another, in a random order."""
    for index in random.Random(seed).sample(range(count), count):
        assert start(run, index, count).wait(300) == 0


def content(run: RunDir) -> list[dict[str, Any]]:
    """Records without the fields that tell who ran them and how fast."""
    found = records.read_folder(run.records)
    return [{k: v for k, v in vars(r).items() if k not in WHO_AND_WHEN} for r in found]


def whole_lines(run: RunDir) -> Counter[records.EpisodeKey]:
    return Counter(record.key for record in records.read_lines(run.records))


def kill_after(run: RunDir, count: int, results: int) -> None:
    """Start the first task of ``count`` and kill it once it has ``results`` results."""
    process = start(run, 0, count)
    deadline = time.monotonic() + 240
    while sum(whole_lines(run).values()) < results:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_the_expert_under_1_3_and_7_tasks_killed_and_cut_anew(tmp_path: Path) -> None:
    whole = new_run(tmp_path / "1", SHORT, EXPERT)
    finish(whole, 1, seed=0)
    config = files.read_json(whole.plan)["config"]
    assert len(content(whole)) == len(planned.from_config(config)) == 6

    three = new_run(tmp_path / "3", SHORT, EXPERT)
    finish(three, 3, seed=1)
    assert content(three) == content(whole)

    cut_anew = new_run(tmp_path / "7", SHORT, EXPERT)
    kill_after(cut_anew, 2, results=1)  # one of two tasks, killed in its second episode
    finish(cut_anew, 7, seed=2)
    assert content(cut_anew) == content(whole)
    assert set(whole_lines(cut_anew).values()) == {1}


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """`rdtl serve` for two clients, in fixed batches."""
    from rdt.policy import loading
    from tests.rdt import small_policy
    from tests.serve import servers

    policy = loading.load(small_policy.trained_folder(folder), 0, loading.Settings(rows=2))
    with servers.ours(policy) as uri:
        yield uri


def test_a_served_policy_in_fixed_batches(tmp_path: Path) -> None:
    """Three clients share batches of two, in whatever order they come."""
    with served(tmp_path) as uri:
        asked = {
            "policies": ["server"],
            "server": uri,
            "suites": {"libero_object": [0]},
            "init_states": (0, 3),
            "execution_horizon": 4,
        }
        whole = new_run(tmp_path / "1", SHORT, asked)
        finish(whole, 1, seed=0)
        together = new_run(tmp_path / "3", SHORT, asked)
        for process in [start(together, index, 3) for index in (2, 0, 1)]:
            assert process.wait(300) == 0
    assert len(content(whole)) == 3
    assert content(together) == content(whole)
    assert {entry["checkpoint"] for entry in content(whole)} != {""}
