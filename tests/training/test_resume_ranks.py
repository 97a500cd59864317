"""Ranks that are killed while they write, and runs that go on with another number of ranks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.training import ranks, tiny

pytestmark = [pytest.mark.train, pytest.mark.slow]


def losses(run: Path) -> dict[int, float]:
    """Loss by step; a step that was done twice must have had the same loss twice."""
    found: dict[int, float] = {}
    for line in (run / "losses.jsonl").read_text().splitlines():
        step, loss = json.loads(line)
        assert found.setdefault(step, loss) == loss
    return found


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_a_kill_while_a_checkpoint_is_written_loses_nothing(tmp_path: Path) -> None:
    whole = tiny.plan(tmp_path / "whole", width=200_000)
    ranks.run(2, "tests.training.tiny", whole, "10")

    run = tiny.plan(tmp_path / "run", width=200_000)
    process = ranks.start(2, "tests.training.tiny", run, "10")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    second = run / "checkpoints/.tmp-step_000008-a0"
    deadline = time.monotonic() + 120
    while not list(second.rglob("*.pt")):  # it is inside the writing of the second
        assert process.poll() is None, (run / "log").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.001)
    for pid in [*map(int, children.read_text().split()), process.pid]:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    assert names(run) == [".tmp-step_000008-a0", "step_000004"]

    ranks.run(2, "tests.training.tiny", run, "10")
    assert names(run) == ["step_000004", "step_000008"]
    assert losses(run) == {step: losses(whole)[step] for step in range(4, 10)}
    one, other = (folder / "checkpoints/step_000008/policy" for folder in (run, whole))
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_divided_weights_on_four_ranks_then_two_then_four(tmp_path: Path) -> None:
    """The losses are those of four ranks all the way."""
    stage = 3
    whole = tiny.plan(tmp_path / "whole", zero_stage=stage, keep_checkpoints=9)
    ranks.run(4, "tests.training.tiny", whole, "14")

    run = tiny.plan(tmp_path / "run", zero_stage=stage)
    shutil.copytree(whole / "checkpoints/step_000004", run / "checkpoints/step_000004")
    ranks.run(2, "tests.training.tiny", run, "8")
    state = json.loads((run / "checkpoints/step_000008/state.json").read_text())
    assert state["layout"] == {"ranks": 2, "zero_stage": stage}
    ranks.run(4, "tests.training.tiny", run, "14")

    expected = losses(whole)
    assert losses(run) == pytest.approx({step: expected[step] for step in range(4, 14)}, rel=1e-3)
    assert losses(run)[13] == pytest.approx(expected[13], rel=1e-5), "worse than it was"
    one, other = (
        load_file(folder / "checkpoints/step_000012/policy/model.safetensors")
        for folder in (run, whole)
    )
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-5


@pytest.mark.slow
def test_a_conversion_may_take_longer_than_an_exchange(tmp_path: Path) -> None:
    run = tiny.plan(tmp_path / "run")
    ranks.run(1, "tests.training.tiny", run, "4")
    ranks.run(2, "tests.training.converting", run, "6")
    assert sorted(losses(run)) == list(range(6))
