"""Room on a box is asked for before data come; what came since must not stop the next run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.core import box_machine, dag_ship, files
from launcher.core.errors import RefusedError
from launcher.dag import load, resolve

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
BARE = {"apt": "bash", "gpus": "0", "vram_gb": "0", "disk_gb": "0.04", "checkpoint_gb": "0.005"}
"""No GPU, 40 MB of disk; five checkpoints of 5 MB."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB as the workspace."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def run(folder: Path, recipe: str, names: list[str], settings: dict[str, str]) -> list[str]:
    """Run some steps of a recipe; what was told of them, as ``event step`` in order."""
    box = folder / "run"
    graph = resolve.resolve(load.load(recipe), str(box), None, settings)
    steps = tuple(replace(s, needs=(), retries=0) for s in graph.steps if s.name in names)
    files.write_json(box / "dag.json", replace(graph, steps=steps).to_dict())
    dag_ship.write(box / "runner.pyz")
    events = box / "events.jsonl"
    before = events.read_text().splitlines() if events.exists() else []
    argv = [sys.executable, str(box / "runner.pyz"), "run", str(box), "--secrets", "-"]
    subprocess.run(argv, input=b"HF_TOKEN=\n", timeout=60, check=False)
    told = map(json.loads, events.read_text().splitlines()[len(before) :])
    wanted = ("step_done", "step_skip", "step_fail")
    return sorted(f"{e['event']} {e['step']} {e.get('code', '')}".strip()
                  for e in told if e["event"] in wanted)  # fmt: skip


@pytest.mark.slow
@AS_ROOT
def test_data_and_checkpoints_that_fill_the_disk_stop_no_later_run(
    disk: Path, tmp_path: Path
) -> None:
    names = ["preflight", "config", "config_check"]
    settings = {**BARE, "workspace": str(disk)}
    graph = resolve.resolve(load.load("openpi/waypoint-ae"), "/run", None, settings)
    env = graph.step("config").env
    for name in ("measured", "statistics", "model"):
        Path(env[name]).mkdir(parents=True)
    Path(env["waypoints"]).mkdir(parents=True)
    (Path(env["waypoints"]) / "waypoint_indices.json").write_text("{}")
    first = run(tmp_path, "openpi/waypoint-ae", ["preflight", "config"], settings)
    assert first == ["step_done config", "step_done preflight"]
    assert run(tmp_path, "openpi/waypoint-ae", names[2:], settings) == ["step_done config_check"]
    checkpoints = Path(env["checkpoints"]) / "500"
    checkpoints.mkdir(parents=True)
    (disk / "data/filler").write_bytes(bytes(20_000_000))
    (checkpoints / "model").write_bytes(bytes(15_000_000))  # three of five
    again = run(tmp_path, "openpi/waypoint-ae", names, settings)
    assert again == [f"step_skip {name}" for name in sorted(names)]
    # Looked at anew, the room of those three counts too; without them it would be too small.
    more = {**settings, "keep": "4", "checkpoint_gb": "0.0045"}
    anew = run(tmp_path, "openpi/waypoint-ae", names[2:], more)
    assert anew == ["step_done config_check"]
    (disk / "data/more").write_bytes(bytes(15_000_000))
    fails = run(tmp_path, "openpi/waypoint-ae", names[2:], {**more, "keep": "5"})
    assert fails == ["step_fail config_check RDTL-G001"]


@AS_ROOT
def test_checkpoints_of_an_earlier_try_are_part_of_their_own_room(disk: Path) -> None:
    (disk / "held").mkdir()
    assert box_machine.budget(disk, disk / "held", 5, 0.01)
    (disk / "held/model").write_bytes(bytes(40_000_000))
    assert box_machine.budget(disk, disk / "held", 5, 0.01)
    with pytest.raises(RefusedError, match="RDTL-G001"):
        box_machine.budget(disk, disk / "nothing", 5, 0.01)
