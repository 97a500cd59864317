"""``rdt/finetune``, ``rdt/ssh-workstation``, ``openpi/serve-eval``: our programs on a box."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher.core import dag_ship, files, manifest
from launcher.dag import load, resolve
from tests.recipes.standins import wheels, world
from tests.staging import servers

ROOT = Path(__file__).parents[2]
MACHINE = {"apt": "bash", "gpus": "0", "vram_gb": "0", "disk_gb": "1"}
SMALL = {
    "config": "demo",
    "options": "--set collect.demos=1 --set train.warmup_steps=2 --set train.checkpoint_every=5",
}
"""The demo's network, from one demonstration that it collects."""
# As the shipped ones: 16 actions, which the recipe must replace, for a chunk of openpi's has 10.
EPISODE = """
name: one
task: {camera_size: 64, env_seed: 7, max_steps: 25}
evaluate:
  suites: {libero_object: [0]}
  policies: [rdt, zero]
  init_states: [0, 2]
  execution_horizon: 16
  shards: 1
"""
OUT_OF_MEMORY = """#!/bin/sh
echo "$*" >> calls
case "$*" in
*micro_batch=8*)
  echo "error RDTL-S033: stage train failed (exit code 1), task 0 of 1"
  echo "  where   logs/train/attempt_1/0.n0.log"
  echo "          | torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB."
  exit 1;;
esac
mkdir -p runs/finetune-box/policy
cd runs/finetune-box/policy
for name in card.json config.json model.safetensors; do echo {} > $name; done
"""


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_effective_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    values = {"workspace": str(tmp_path), "ranks": "2"}
    graph = resolve.resolve(load.load("rdt/finetune"), str(run), None, values)
    train = replace(graph.step("train"), needs=(), retry_wait_s=0.1)
    files.write_json(run / "dag.json", replace(graph, steps=(train,)).to_dict())
    dag_ship.write(run / "runner.pyz")
    (tmp_path / "bin").mkdir()
    rdtl = tmp_path / "bin/rdtl"
    rdtl.write_text(
        OUT_OF_MEMORY.replace("calls", f"{tmp_path}/calls", 1).replace(
            " runs/", f" {tmp_path}/runs/"
        )
    )
    rdtl.chmod(0o755)
    files.write_text(tmp_path / "configs/options", "--set\ntrain.steps=10\n")
    done = subprocess.run(
        [sys.executable, str(run / "runner.pyz"), "run", str(run), "--secrets", "-"],
        input=b"HF_TOKEN=\nWANDB_API_KEY=\n",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    asked = [words(line) for line in (tmp_path / "calls").read_text().splitlines()]
    assert [(a["train.micro_batch"], a["train.accumulation"]) for a in asked] == [
        ("8", "4"),
        ("4", "8"),
    ]
    assert {a["train.effective_batch"] for a in asked} == {"64"}


def restored(folder: Path, store: Path) -> tuple[int, dict[str, Any]]:
    """Run the step that fetches checkpoints; exit code and its last state."""
    run = folder / "run"
    values = {"workspace": str(folder), "upload": f"file://{store}"}
    graph = resolve.resolve(load.load("rdt/finetune"), str(run), None, values)
    step = replace(graph.step("restore"), needs=(), retries=0)
    files.write_json(run / "dag.json", replace(graph, steps=(step,)).to_dict())
    dag_ship.write(run / "runner.pyz")
    argv = [sys.executable, str(run / "runner.pyz"), "run", str(run), "--secrets", "-"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, input=b"HF_TOKEN=\n", env=environment, timeout=90, check=False)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return done.returncode, [e for e in events if e["event"].startswith("step_")][-1]


@pytest.mark.slow
def test_training_begins_at_0_only_where_nothing_was_uploaded(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    files.write_text(tmp_path / "configs/sites/box.yaml", "kind: local\ngpus_per_node: 0\n")
    program = f'#!/bin/sh\ncd {tmp_path} && exec {sys.executable} -P -m launcher "$@"\n'
    (tmp_path / "bin/rdtl").write_text(program)
    (tmp_path / "bin/rdtl").chmod(0o755)
    store = tmp_path / "store"
    assert restored(tmp_path, store)[0] == 0
    shutil.rmtree(tmp_path / "run")
    checkpoint = store / "finetune-box/checkpoints/step_5"
    files.write_text(checkpoint / "state.json", "{}")
    promised = manifest.Manifest((manifest.File("step_6/state.json", 2, "0" * 64),))
    files.write_text(store / "finetune-box/checkpoints/rdtl-manifest.json", promised.text)
    rc, event = restored(tmp_path, store)
    assert rc == 1 and event["event"] == "step_fail", "an upload that has not ended"
    (store / "finetune-box/checkpoints/rdtl-manifest.json").unlink()
    here = tmp_path / "runs/finetune-box/checkpoints"
    for _ in range(2):
        rc, event = restored(tmp_path, store)
        assert (rc, event["event"]) == (0, "step_done")
        assert (here / "step_5/state.json").read_text() == "{}"
        shutil.rmtree(here)  # so its proof fails, and it is fetched again


def test_a_fresh_box_plans_to_bring_public_weights_onto_its_data_disk(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    values = {"workspace": str(tmp_path), "gpus": "1"}
    graph = resolve.resolve(load.load("rdt/finetune"), str(run), None, values)
    files.write_json(
        run / "dag.json", replace(graph, steps=(replace(graph.step("site"), needs=()),)).to_dict()
    )
    dag_ship.write(run / "runner.pyz")
    (run / "code").symlink_to(ROOT)
    argv = [sys.executable, str(run / "runner.pyz"), "run", str(run), "--secrets", "-"]
    subprocess.run(argv, input=b"", timeout=60, check=True)
    asked = [str(tmp_path / "bin/rdtl"), "train", "sft", "--site", "box", "--dry-run", "--json"]
    asked += ["--set", "train.memory_gb=1"]
    environment = {**os.environ, "HOME": str(tmp_path / "home")}
    done = subprocess.run(asked, env=environment, timeout=60, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    plan = json.loads(done.stdout)["plan"]
    assert (plan["stages"][0]["name"], plan["config"]["asset_cache"]) == (
        "stage", str(tmp_path / "assets"),
    )  # fmt: skip
    assert "rdt-1b" in plan["config"]["assets"][0]["uri"]


def words(line: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def recipe(folder: Path, name: str, status: int = 0, **settings: str) -> list[dict[str, Any]]:
    """Run it on this machine, whose environment of ours is there already; its events.

    As below sshd, where bash reads start-up files.
    """
    (folder / "home").mkdir()
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    chosen = {"workspace": str(folder), **MACHINE, **settings}
    argv = [sys.executable, "-P", "-m", "launcher", "recipe", "run", name]
    argv += [word for pair in chosen.items() for word in ("--set", "=".join(pair))]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SSH_CLIENT": "::1 1 2",
    }
    done = subprocess.run(argv, env=environment, timeout=900, capture_output=True, check=False)
    assert done.returncode == status, done.stderr.decode()
    (events,) = (folder / "home").rglob("events.jsonl")
    return [json.loads(line) for line in events.read_text().splitlines()]


def test_a_refused_configuration_fails_in_one_place_with_its_reason(tmp_path: Path) -> None:
    options = SMALL["options"] + " --set train.steps=1"  # fewer than it warms up for
    asked = {**SMALL, "command": "train", "options": options}
    events = recipe(tmp_path, "rdt/ssh-workstation", status=1, **asked)
    failed = [(one["step"], one["code"]) for one in events if one["event"] == "step_fail"]
    assert failed == [("run", "RDTL-T062")]


@pytest.mark.slow
def test_a_fine_tuning_ends_in_an_uploaded_policy(tmp_path: Path) -> None:
    more = {"data": "none", "embeddings": "none", "steps": "10", "checkpoint_gb": "0.1"}
    more |= SMALL
    events = recipe(tmp_path, "rdt/finetune", upload=f"file://{tmp_path}/store", **more)
    markers = [
        one["values"] for one in events if one["event"] == "marker" and one["name"] == "step"
    ]
    assert markers[-1]["steps"] == "10"
    uploaded = [one["values"] for one in events if one.get("name") == "uploaded"]
    assert uploaded == [{"proven": f"file://{tmp_path}/store/finetune-policy"}]
    assert (tmp_path / "store/finetune-policy/card.json").exists()
    assert list((tmp_path / "store").rglob("state.json"))  # a checkpoint, while it trained


@pytest.mark.slow
def test_a_workstation_s_results_are_one_file(tmp_path: Path) -> None:
    options = SMALL["options"] + " --set train.steps=10"
    recipe(tmp_path, "rdt/ssh-workstation", **{**SMALL, "command": "train", "options": options})
    with tarfile.open(tmp_path / "results/workstation.tar.gz") as archive:
        names = set(archive.getnames())
    assert {"policy/card.json", "policy/model.safetensors", "plan.json"} <= names


@pytest.mark.slow
def test_upstream_s_server_is_judged_by_our_evaluation(tmp_path: Path) -> None:
    wheels.write(tmp_path / "wheels")
    world.repository(tmp_path / "openpi_upstream", tmp_path / "wheels")
    scripts = tmp_path / "openpi_upstream/scripts"
    shutil.copy(Path(world.HERE) / "serve_policy.py", scripts)
    (scripts / "paths").write_text("\n".join(path for path in sys.path if path))
    for words_of in (("add", "."), ("commit", "--quiet", "-m", "a server")):
        subprocess.run([*world.GIT, *words_of], cwd=scripts, check=True)
    asked = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(asked, cwd=scripts, check=True, capture_output=True, text=True)
    files.write_text(tmp_path / "configs/evaluate/one.yaml", EPISODE)
    with servers.gcs(tmp_path / "gcs", tmp_path / "emulator") as gcs:
        world.bucket(gcs.url)
        recipe(
            tmp_path,
            "openpi/serve-eval",
            repository=f"file://{tmp_path}/openpi_upstream",
            commit=commit.stdout.strip(),
            checkpoint="checkpoints/pi05_base",
            checkpoint_gb="0",
            store=f':gcs,anonymous=true,endpoint="{gcs.url}/storage/v1/"',
            evaluation="one",
            port=str(servers.free_port()),
            upload=f"file://{tmp_path}/store",
        )
    served = json.loads((tmp_path / "models/pi05_libero.served").read_text())
    assert served["config"] == "pi05_libero"
    report = tmp_path / "store/openpi-report/tasks.csv"
    rows = list(csv.DictReader(report.read_text().splitlines()))
    ours = [row for row in rows if row["policy"] == "server"]
    assert {row["num_traj"] for row in ours} == {"2"}, rows
    assert list((tmp_path / "store/openpi-records").rglob("*.jsonl"))
