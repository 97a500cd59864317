"""Ctrl-C in the long parts of the road, and the command that it names."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.cli.interrupting import interrupt
from tests.cli.run_rdtl import rdtl
from tests.rdt import synthetic
from tests.road import small_demo

pytestmark = [pytest.mark.sim, pytest.mark.train, pytest.mark.slow]


def named_command(said: str) -> list[str]:
    """Arguments of the `rdtl …` after which it goes on."""
    (line,) = [line for line in said.splitlines() if line.startswith("interrupted; ")]
    program, *words = shlex.split(line.partition("to go on: ")[2])
    assert program == "rdtl"
    return words


def test_a_demo_ends_at_once(tmp_path: Path) -> None:
    logs = tmp_path / "runs" / "demo-quick-local" / "logs"
    done = interrupt(
        *small_demo.command("--runtime", "none")[4:],
        when=lambda: any("start-up" in log.read_text() for log in logs.rglob("*.log")),
        cwd=tmp_path,
    )
    assert done.returncode == 130, done.stderr
    assert named_command(done.stderr) == ["runs", "resume", str(logs.parent)]


def test_training_goes_on_where_it_was(tmp_path: Path) -> None:
    demos = {f"demo_{n}": synthetic.demonstration(n, steps=40) for n in range(4)}
    data = synthetic.write(tmp_path / "data" / "cube_demo.hdf5", demos)
    config = tmp_path / "mine.yaml"
    config.write_text(
        f"name: mine\ntask: {{camera_size: 64}}\ndataset: {{sets: [{{path: {data}}}]}}\n"
        "train: {steps: 60, warmup_steps: 1, checkpoint_every: 4, log_every: 1}\n"
    )
    run = tmp_path / "runs" / "mine-local"
    saved = run / "checkpoints" / "step_000004"
    done = interrupt("train", str(config), when=saved.exists, cwd=tmp_path, timeout_s=300)
    assert done.returncode == 130, done.stderr
    assert not (run / "policy" / "model.safetensors").exists()
    resumed = rdtl(*named_command(done.stderr), cwd=tmp_path, timeout=600)
    assert resumed.returncode == 0, resumed.stderr
    assert (run / "policy" / "model.safetensors").exists()
    steps = [json.loads(line)["step"] for line in (run / "checkpoints/metrics.jsonl").open()]
    assert steps == sorted(set(steps)), "a step was done twice"


def test_evaluation_goes_on_where_it_was(tmp_path: Path) -> None:
    settings = [
        "evaluate.policies=[zero]",
        "evaluate.init_states=[30, 34]",
        "evaluate.videos=0",
        "task.max_steps=40",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    run = tmp_path / "runs" / "mine-local"
    done = interrupt(
        *("evaluate", "demo", "--name", "mine", "--shards", "1", *words),
        when=lambda: any(part.stat().st_size for part in (run / "records").glob("part-*")),
        cwd=tmp_path,
        timeout_s=300,
    )
    assert done.returncode == 130, done.stderr
    before = small_demo.all_lines(run)
    resumed = rdtl(*named_command(done.stderr), cwd=tmp_path, timeout=600)
    assert resumed.returncode == 0, resumed.stderr
    assert 0 < before < small_demo.all_lines(run) == len(small_demo.records(run)) == 4
