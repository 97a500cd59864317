"""A frame fits its terminal, whatever there is to show, and its numbers are right."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.judges import State, Task
from launcher.markers import Markers
from launcher.status import RunStatus, StageStatus
from launcher.watch import draw, figures

STATES: tuple[State, ...] = tuple(draw.STYLE)
text = st.text(max_size=60)
tasks = st.lists(st.tuples(st.sampled_from(STATES), text), min_size=1, max_size=400)


def run_with(root: Path, name: str, found: list[tuple[State, str]]) -> RunStatus:
    """The status of a run of one stage whose tasks are in these states."""
    run = RunDir(root)
    stage = Stage(name, ("true",), array=len(found))
    all_ = tuple(Task(i, state, why, attempt=1) for i, (state, why) in enumerate(found))
    status = StageStatus(stage, all_, 1, 0.0)
    return RunStatus(run, Plan("p", "s", (stage,), {}), (status,), Markers(run), "slurm", 1.0)


def test_frames_fit_their_width(tmp_path: Path) -> None:
    @settings(max_examples=60, deadline=None)
    @given(tasks, st.sampled_from([40, 80, 120]), st.booleans())
    def fits(found: list[tuple[State, str]], width: int, plain: bool) -> None:
        lines = draw.frame([run_with(tmp_path, "evaluate", found)], width, plain=plain)
        assert max(line.cell_len for line in lines) <= width
        assert len(lines) <= 14
        assert all(line.plain.isprintable() for line in lines)

    fits()


def test_every_state_that_is_there_is_seen(tmp_path: Path) -> None:
    """With several tasks to a cell the pressing ones win: a failure is never hidden."""
    found: list[tuple[State, str]] = [("done", "")] * 999 + [("failed", "exit code 4")]
    drawn = "\n".join(line.plain for line in draw.frame([run_with(tmp_path, "work", found)], 80))
    assert drawn.count("✗") == 1
    assert "999/1000  1 failed" in drawn
    assert "failed: task 999: exit code 4" in drawn
    assert "(a cell is 4 tasks)" in drawn


def test_a_terminal_without_unicode_gets_ascii(tmp_path: Path) -> None:
    found: list[tuple[State, str]] = [(state, "") for state in STATES]
    for line in draw.frame([run_with(tmp_path, "work", found)], 80, plain=True):
        assert line.plain.isascii()


@pytest.mark.parametrize(
    ("values", "width", "expected"),
    [
        ([1.0], 10, ""),
        ([2.0, 1.0], 10, "█▁"),
        ([1.0, 1.0, 1.0], 10, "▁▁▁"),
        ([4.0, 4.0, 0.0, 0.0], 2, "█▁"),
        (list(map(float, range(8))), 8, "▁▂▃▄▅▆▇█"),
    ],
)
def test_sparkline(values: list[float], width: int, expected: str) -> None:
    assert draw.sparkline(values, width) == expected


def test_training_figures_come_from_the_loss_record(tmp_path: Path) -> None:
    one = run_with(tmp_path, "train", [("running", "")])
    lines = [{"step": s, "train/loss": 100 / s, "seconds": s * 0.5} for s in range(1, 101)]
    one.run.checkpoints.mkdir()
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (one.run.checkpoints / "metrics.jsonl").write_text(text + '{"step": 101, "lo')
    (one.run.checkpoints / "step_000080").mkdir()
    os.utime(one.run.checkpoints / "step_000080", (1000.0, 1000.0))
    progress(one.run, "train", 0, done=100, total=400, unit="steps", at=50.0)
    found = figures.of(one, one.stages[0], now=1000.0 + 150)
    assert found.rate == pytest.approx(2.0)
    assert found.seconds_left == pytest.approx(150)
    assert (found.loss[0], found.loss[-1]) == (100.0, 1.0)
    assert found.checkpoint == "step_000080, 2 min ago"


def progress(run: RunDir, stage: str, index: int, **values: object) -> None:
    path = run.progress(stage, index)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"index": index, "text": "", **values}))


def test_speed_counts_from_where_a_requeued_task_began(tmp_path: Path) -> None:
    one = run_with(tmp_path, "evaluate", [("running", ""), ("waiting", "")])
    one.run.ledger.publish("claim.evaluate.a1", indices=[0, 1])
    name = one.run.ledger.folder / "started.evaluate.i0.a1.r0.json"
    name.write_text(json.dumps({"at": 1000.0, "progress": 40}))
    one.markers.refresh()
    progress(one.run, "evaluate", 0, done=50, total=100, unit="episodes", at=1020.0)
    found = figures.of(one, one.stages[0], now=1030.0)
    assert found.rate == pytest.approx(0.5), "what earlier starts did was counted as speed"
    assert (found.done, found.total) == (50, 200), "a task that has not begun has work too"
    assert found.seconds_left == pytest.approx(300)


def test_the_last_line_of_a_failed_task_is_shown(tmp_path: Path) -> None:
    one = run_with(tmp_path, "evaluate", [("done", ""), ("failed", "exit code 1")])
    log = one.run.log("evaluate", 1, 1, 0)
    log.parent.mkdir(parents=True)
    log.write_text("x" * 9000 + "\nValueError: \x1b[31mno such\x1b[0m body\n\n")
    found = figures.of(one, one.stages[0])
    assert found.error == "task 1: exit code 1: ValueError: no such body"
