"""All that ``openpi/waypoint-ae`` meets outside its box, small and real: a git repository with
the pinned layout, wheels, a drive, a public bucket, a GPU's nvidia-smi."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np

from launcher.staging import engine
from tests.data import writers
from tests.recipes.standins import wheels
from tests.staging import servers

HERE = Path(__file__).parent
EPISODES = 32
STEPS = 10
NVIDIA_SMI = """#!/bin/sh
case "$*" in
*query-gpu*)
  for n in 0 1; do
    echo "NVIDIA RTX PRO 6000 Blackwell Server Edition, 97887, 575.57.08"
  done;;
*) echo "NVIDIA-SMI 575.57.08";;
esac
"""
PYPROJECT = """[project]
name = "openpi"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["torch==2.7.1", "transformers==4.53.2", "jax==0.5.3"]

[tool.uv]
package = false
no-index = true
find-links = ["{wheels}"]
{override}
"""
OVERRIDE = (
    'override-dependencies = ["ml-dtypes==0.4.1", "tensorstore==0.1.74", "av>=13.1.0,<14.0.0"]'
)
ROBOTS = """
def make_libero_config():
    return RobotConfig(robot_type="libero", actual_action_dim=7, actual_proprio_dim=8)

def make_r1_lite_config(dims):
    return RobotConfig(robot_type="r1_lite", actual_action_dim=len(dims), actual_proprio_dim=14)
"""
GIT = (
    "git",
    "-c",
    "user.name=test",
    "-c",
    "user.email=test@example.org",
    "-c",
    "commit.gpgsign=false",
)


@dataclass(frozen=True)
class World:
    """Where everything is, and the words of ``--set`` that lead there."""

    folder: Path
    commit: str
    settings: dict[str, str]
    path: str
    """PATH of the box: its tools and the simulated nvidia-smi."""

    @property
    def workspace(self) -> Path:
        return Path(self.settings["workspace"])


def repository(folder: Path, wheel_folder: Path, fault: str = "", override: str = OVERRIDE) -> str:
    """A git repository with the pinned layout; returns its commit."""
    replace = folder / "src/openpi/models_pytorch/transformers_replace/models"
    for name in (*wheels.TRANSFORMERS, "siglip/check.py"):
        (replace / name).parent.mkdir(parents=True, exist_ok=True)
        (replace / name).write_text("laid = True\n")
    for name, source in (
        ("scripts", "train_waypoint.py"),
        ("examples", "convert_jax_model_to_pytorch.py"),
    ):
        (folder / name).mkdir()
        shutil.copy(HERE / source, folder / name)
    if fault:
        (folder / "scripts/fault").write_text(fault)
    (folder / "src/openpi/waypoint").mkdir()
    for name in ("ae_model.py", "ae_dataset.py"):
        (folder / "src/openpi/waypoint" / name).write_text("")
    (folder / "src/openpi/waypoint/robot_config.py").write_text(ROBOTS)
    (folder / "pyproject.toml").write_text(PYPROJECT.format(wheels=wheel_folder, override=override))
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "lock", "--quiet", "--offline"], cwd=folder, check=True, timeout=60)
    (folder / ".gitignore").write_text(".venv\n")
    for words in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "pinned")):
        subprocess.run([*GIT, *words], cwd=folder, check=True)
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True)
    return done.stdout.decode().strip()


def drive(folder: Path) -> None:
    """What lies on the drive: both data sets, the first readable, with 32 shards."""
    random = np.random.default_rng(0)
    episodes = [
        {
            "steps/action": random.uniform(-1, 1, (STEPS, 7)).astype(np.float32),
            "steps/observation/state": random.normal(size=(STEPS, 8)).astype(np.float32),
            "steps/language_instruction": [b"pick up the soup and place it in the basket"] * STEPS,
        }
        for _ in range(EPISODES)
    ]
    rlds = folder / "libero/libero_object_no_noops/libero_object_no_noops/1.0.0"
    writers.write_rlds(episodes, rlds, shards=32, name="libero_object")
    (rlds / "features.json").write_text("{}")
    waypoints = folder / "libero/libero_object_wp_001"
    filtered = waypoints / "waypoint_filtered_rlds__libero/1.0.0"
    writers.write_rlds(episodes[:8], filtered, shards=4, name="waypoint_filtered")
    (filtered / "features.json").write_text("{}")
    (waypoints / "waypoint_indices.json").write_text(json.dumps({"episodes": []}))


def _put(url: str, name: str, content: bytes) -> None:
    bucket, _, path = name.partition("/")
    target = (
        f"{url}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={path.replace('/', '%2F')}"
    )
    urlopen(
        Request(target, content, {"Content-Type": "application/octet-stream"}), timeout=20
    ).read()


def bucket(url: str) -> None:
    """The public buckets: a base checkpoint of a few bytes and the tokenizer."""
    for name in ("openpi-assets", "big_vision"):
        body = json.dumps({"name": name}).encode()
        urlopen(
            Request(f"{url}/storage/v1/b", body, {"Content-Type": "application/json"}), timeout=20
        ).read()
    base = "openpi-assets/checkpoints/pi05_base"
    for name in (
        "params/_METADATA",
        "params/ocdbt.process_0/manifest.ocdbt",
        "params/ocdbt.process_0/d/1",
        "assets/arx/norm_stats.json",
    ):
        _put(url, f"{base}/{name}", os.urandom(2000))
    _put(url, f"{base}/params/commit_success.txt", b"\n")
    _put(url, "big_vision/paligemma_tokenizer.model", os.urandom(500))


@contextmanager
def world(folder: Path, fault: str = "", **more: str) -> Iterator[World]:
    """Servers run while the block does. ``fault``: what the training program meets."""
    wheels.write(folder / "wheels")
    commit = repository(folder / "repository", folder / "wheels", fault)
    drive(folder / "drive")
    (folder / "drive/runs").mkdir()
    tools = folder / "bin"
    tools.mkdir()
    (tools / "nvidia-smi").write_text(NVIDIA_SMI)
    (tools / "nvidia-smi").chmod(0o755)
    (tools / "rclone").symlink_to(engine.program())
    (tools / "uv").symlink_to(Path(sys.executable).with_name("uv"))
    with (
        servers.serve("webdav", folder / "drive", folder / "webdav") as webdav,
        servers.gcs(folder / "gcs", folder / "emulator") as gcs,
    ):
        bucket(gcs.url)
        settings = {
            "workspace": str(folder / "box"),
            "repository": f"file://{folder}/repository",
            "commit": commit,
            "contains": f"RDTL-D026={commit}",
            "apt": "bash coreutils",
            "remote_type": "webdav",
            "remote_options": f"url={webdav.url} vendor=other",
            "root": "",
            "store": f':gcs,anonymous=true,endpoint="{gcs.url}/storage/v1/"',
            "base_gb": "0",
            "disk_gb": "0.1",
            "checkpoint_gb": "0.001",
            "statistics_steps": str(EPISODES * STEPS),
            "steps": "20",
            "save": "10",
            "upload": "gg1:runs/ae",
            "wandb": "offline",
            "tensorflow": "tensorflow==2.15.0 tensorflow-datasets==4.9.3",
            **more,
        }
        yield World(folder, commit, settings, f"{tools}:/usr/local/bin:/usr/bin:/bin")
