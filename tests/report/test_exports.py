"""The result in the shapes of lerobot-eval and vla-eval, against their own code."""

from __future__ import annotations

import ast
import concurrent.futures
import functools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import venv
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypedDict

import numpy as np
import pytest

import launcher.report
from launcher.core.runs import RunDir
from tests.report import runs

MEANS = {
    *("avg_sum_reward", "avg_max_reward", "pc_success", "n_episodes"),
    *("video_paths", "predicted_video_paths"),
}
VLA_EVAL, LEROBOT = "vla-eval==0.8.0", "lerobot==0.6.1"
READER = """
import json, sys
from vla_eval.results.collector import ResultCollector
from vla_eval.results.export import print_export_summary

ours = json.load(open(sys.argv[1]))
collector = ResultCollector(ours["benchmark"], ours["mode"], ours["metric_keys"])
for task in ours["tasks"]:
    for episode in task["episodes"]:
        collector.record(task["task"], episode)
print_export_summary([ours])
json.dump(collector.get_benchmark_result(ours["config"]), open(sys.argv[2], "w"))
"""


def built(root: Path) -> RunDir:
    """Two tasks; 3 successes, 3 failures, an error, a missing episode; a reference lacks all."""
    suites = {"libero_object": [0, 3]}
    run = runs.new_run(root, policies=["rdt", "zero"], init_states=(30, 34), suites=suites)
    outcomes = ["success", "success", "fail", "env_error", "fail", "success", "fail"]
    found = [
        runs.record(run, "rdt", 30 + n % 4, status, task_id=3 * (n // 4),
                    task_name=f"task_{n // 4}", error="lost" if status == "env_error" else "")
        for n, status in enumerate(outcomes)
    ]  # fmt: skip
    runs.add(run, found)
    runs.add_video(run, "rdt", 32, "fail", 0)
    run.ledger.publish("finished.evaluate", ok=True)
    launcher.report.build(run.root)
    return run


def test_lerobots_trainer_finds_what_it_reads(tmp_path: Path) -> None:
    """Keys of lerobot 0.6.1; its trainer takes four of them, and the first video, from overall."""
    run = built(tmp_path)
    found = json.loads((run.report / "eval_info.json").read_text())
    assert set(found) == {"per_task", "per_group", "overall"}
    assert set(found["overall"]) == MEANS | {"eval_s", "eval_ep_s"}
    assert set(found["per_group"]["libero_object"]) == MEANS
    assert found["overall"]["pc_success"] == pytest.approx(100 * 3 / 7)  # an error is a failure
    assert found["overall"]["eval_s"] == pytest.approx(7 * 3.25)
    assert Path(found["overall"]["video_paths"][0]).is_file()
    first, second = found["per_task"]
    assert (first["task_group"], first["task_id"], second["task_id"]) == ("libero_object", 0, 3)
    assert first["metrics"]["successes"] == [True, True, False, False]
    assert first["metrics"]["video_paths"] == found["overall"]["video_paths"]
    assert second["metrics"]["video_paths"] == []


@pytest.mark.slow
def test_lerobot_makes_the_same_file_of_our_episodes(tmp_path: Path) -> None:
    """Its own function, asked to evaluate tasks whose episodes are ours, comes to our numbers."""
    found = json.loads((built(tmp_path).report / "eval_info.json").read_text())
    metrics = {(t["task_group"], t["task_id"]): t["metrics"] for t in found["per_task"]}
    envs: dict[str, dict[int, Any]] = {}
    for suite, task_id in metrics:
        envs.setdefault(suite, {})[task_id] = SimpleNamespace(close=lambda: None)
    policy = SimpleNamespace(training=False, eval=lambda: None, train=lambda mode: None)
    evaluate = _lerobot_eval(
        lambda suite, task_id, env, **_: (suite, task_id, metrics[suite, task_id])
    )
    expected = json.loads(json.dumps(evaluate(envs, policy, *[None] * 4, n_episodes=4)))
    assert expected["overall"].keys() == found["overall"].keys()
    for measured in ("eval_s", "eval_ep_s"):
        expected["overall"][measured] = found["overall"][measured]
    assert found == expected


def _lerobot_eval(run_one: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """`eval_policy_all` of lerobot's own file, which asks ``run_one`` for the episodes of a task.

    The file is not imported: it asks for Python 3.12 and half of the world.
    """
    with zipfile.ZipFile(_lerobot()) as wheel:
        tree = ast.parse(wheel.read("lerobot/scripts/lerobot_eval.py"))
    wanted = ("eval_policy_all", "TaskMetrics", "ACC_KEYS")
    tree.body = [
        node for node in tree.body
        if getattr(node, "name", "") in wanted
        or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in wanted)
    ]  # fmt: skip
    modules = {"np": np, "time": time, "threading": threading, "cf": concurrent.futures}
    names = {"defaultdict": defaultdict, "partial": functools.partial, "TypedDict": TypedDict}
    scope: dict[str, Any] = {**modules, **names, "run_one": run_one}
    exec(compile(tree, LEROBOT, "exec"), scope)  # inherits that annotations are not evaluated
    made: Callable[..., dict[str, Any]] = scope["eval_policy_all"]
    return made


def _lerobot() -> Path:
    """Its wheel, cached."""
    folder = _cache() / LEROBOT
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        asked = ["--no-deps", "--only-binary", ":all:", "--python-version", "3.12", LEROBOT]
        download = [sys.executable, "-m", "pip", "download", "-q", *asked, "-d", folder]
        subprocess.run(download, check=True, timeout=300)
        (folder / "complete").touch()
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_vla_evals_shape(tmp_path: Path) -> None:
    found = json.loads((built(tmp_path).report / "vla_eval.json").read_text())
    first, second = found["tasks"]
    assert (found["mean_success"], found["num_errors"]) == (round(3 / 7, 4), 1)
    assert (first["num_episodes"], first["num_errors"], "num_errors" in second) == (4, 1, False)
    assert first["episodes"][3]["failure_reason"] == "env_error"
    assert "failure_reason" not in first["episodes"][2]
    assert found["partial"] is True  # an episode of rdt is missing
    assert found["created_at"].startswith("20")


@pytest.mark.slow
def test_vla_eval_reads_it_and_counts_the_same(tmp_path: Path) -> None:
    """Its own collector, given our episodes, comes to our numbers; its command prints them."""
    ours, theirs = built(tmp_path).report / "vla_eval.json", tmp_path / "theirs.json"
    argv = [_vla_eval(), "-c", READER, ours, theirs]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "42.9%" in done.stdout and "(1/3)" in done.stdout and "1 errors" in done.stdout
    expected: dict[str, Any] = json.loads(theirs.read_text())
    found: dict[str, Any] = json.loads(ours.read_text())
    for name in {*expected} - {"created_at", "harness_version"}:
        assert found[name] == expected[name], name


def _vla_eval() -> Path:
    """The interpreter of a cached environment with vla-eval's results, which need only rich."""
    folder = _cache() / VLA_EVAL
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        for packages in (["--no-deps", VLA_EVAL], ["rich"]):
            install = [folder / "bin/python", "-m", "pip", "install", "-q", *packages]
            subprocess.run(install, check=True, timeout=300)
        (folder / "complete").touch()
    return folder / "bin/python"


def _cache() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "rdtl" / "tests"
