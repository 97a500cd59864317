"""``openpi/waypoint-ae`` among stand-ins, with its runner killed in every single step."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from launcher.core import dag_ship, files
from launcher.core.dag_files import BoxRun
from tests.recipes.openpi_box import SECRETS, Box
from tests.recipes.standins import world as worlds

pytestmark = pytest.mark.slow
LIMIT_S = 240.0


def start(box: Box) -> subprocess.Popen[bytes]:
    """A runner as a child, so that it can be killed."""
    runner = subprocess.Popen(
        ["python3", "runner.pyz", "run", str(box.run_folder), "--secrets", "-"],
        cwd=box.run_folder,
        env=box.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert runner.stdin is not None
    runner.stdin.write(SECRETS.encode())
    runner.stdin.close()
    return runner


def begun(run: BoxRun) -> set[str]:
    """Steps that ever began."""
    return {event["step"] for event in run.told() if event["event"] == "step_begin"}


def test_a_runner_killed_in_every_step_comes_to_the_same_end(tmp_path: Path) -> None:
    with worlds.world(tmp_path / "world") as world:
        box = Box(world, tmp_path / "machine")
        graph, run = box.graph(), BoxRun(box.run_folder)
        run.root.mkdir()
        files.write_json(run.graph, graph.to_dict())
        dag_ship.write(run.root / "runner.pyz")
        (run.root / "code").symlink_to(Path(__file__).parents[2])
        killed: set[str] = set()
        deadline = time.monotonic() + LIMIT_S
        while killed != {step.name for step in graph.steps}:
            runner = start(box)
            while not begun(run) - killed:
                assert time.monotonic() < deadline and runner.poll() is None, run.told()[-3:]
                time.sleep(0.01)
            killed |= begun(run)
            runner.kill()
            runner.wait()
        assert start(box).wait(timeout=LIMIT_S) == 0, run.told()[-5:]
        for step in graph.steps:
            own = [event["event"] for event in run.told() if event.get("step") == step.name]
            ended = min(own.index(name) for name in ("step_done", "step_skip") if name in own)
            assert step.always or "step_begin" not in own[ended:], (step.name, own)
        uploaded = sorted(p.name for p in (world.folder / "drive/runs/ae/fixed/20").iterdir())
        assert uploaded == ["metadata.pt", "model.safetensors", "optimizer.pt"]
