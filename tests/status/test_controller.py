"""The scheduler is asked seldom, whoever asks, and its words are read as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.controller import LONGEST_HOLD_S, Controller, indices, parse

SQUEUE = """\
2|7|RUNNING|None|2026-11-21T07:44:02|n1|rdtl-1|a b
2|8,12-14|PENDING|Resources|N/A||rdtl-1
3|N/A|PENDING|Dependency|N/A||rdtl-2
"""


class Clock:
    """A clock that stands still until it is told to move."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def programs(folder: Path, squeue: str, sacct: str = "exit 1") -> dict[str, str]:
    """An environment whose squeue and sacct are shell lines that note their call."""
    folder.mkdir(exist_ok=True)
    for name, body in (("squeue", squeue), ("sacct", sacct)):
        path = folder / name
        path.write_text(f'#!/bin/sh\necho {name} "$@" >> {folder}/calls\n{body}\n')
        path.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def calls(folder: Path, name: str = "squeue") -> int:
    path = folder / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    return sum(line.startswith(name) for line in lines)


def test_it_is_asked_once_in_half_a_minute(tmp_path: Path) -> None:
    clock, bin_ = Clock(), tmp_path / "bin"
    environment = programs(bin_, f"cat <<'END'\n{SQUEUE}END")
    for _ in range(3):
        found = Controller(environment, tmp_path, clock=clock).snapshot()
    assert calls(bin_) == 1
    assert [row.state for row in found.rows] == ["RUNNING", "PENDING", "PENDING"]
    clock.now += 29
    Controller(environment, tmp_path, clock=clock).snapshot()
    assert calls(bin_) == 1
    clock.now += 1
    Controller(environment, tmp_path, clock=clock).snapshot()
    assert calls(bin_) == 2
    Controller(environment, tmp_path, clock=clock).snapshot(fresh=True)
    assert calls(bin_) == 3


def test_an_hour_of_watching_costs_120_questions(tmp_path: Path) -> None:
    clock, bin_ = Clock(), tmp_path / "bin"
    environment = programs(bin_, "true", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    controller = Controller(environment, tmp_path, clock=clock)
    for _ in range(1800):
        controller.with_ends(controller.snapshot(), {"7"}, clock.now)
        clock.now += 2
    assert calls(bin_) <= 121
    assert calls(bin_, "sacct") == 1, "a cluster without accounting is asked again and again"


def test_a_silent_controller_is_asked_less_and_less(tmp_path: Path) -> None:
    clock, bin_ = Clock(), tmp_path / "bin"
    environment = programs(bin_, f"cat <<'END'\n{SQUEUE}END")
    controller = Controller(environment, tmp_path, clock=clock)
    known = controller.snapshot()
    programs(bin_, "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    before = calls(bin_)
    clock.now += 30
    for _ in range(3600):
        silent = controller.snapshot()
        clock.now += 1
    assert "Unable to contact" in silent.error
    assert silent.rows == known.rows and silent.at == known.at, "what was known is lost"
    assert calls(bin_) - before <= 5 + 3600 / LONGEST_HOLD_S
    programs(bin_, f"cat <<'END'\n{SQUEUE}END")
    clock.now += LONGEST_HOLD_S
    assert controller.snapshot().error == ""


def test_a_controller_that_is_silent_for_days_is_asked_on(tmp_path: Path) -> None:
    """Every failure is counted, and the file in which they are outlives whoever looks."""
    clock, bin_ = Clock(), tmp_path / "bin"
    controller = Controller(programs(bin_, "exit 1"), tmp_path, clock=clock)
    (kept,) = (controller.snapshot(), *tmp_path.glob("queue-*.json"))[1:]
    kept.write_text(kept.read_text().replace('"failures": 1,', '"failures": 5000,'))
    assert '"failures": 5000' in kept.read_text()
    before = calls(bin_)
    for _ in range(3):
        clock.now += LONGEST_HOLD_S
        controller.snapshot()
    assert calls(bin_) - before == 3


def test_processes_that_look_at_once_share_one_answer(tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    environment = programs(bin_, "sleep 0.3; echo '1|N/A|RUNNING|None|N/A|n1|x'")
    code = (
        "import sys, os; from pathlib import Path; from launcher.controller import Controller;"
        f"found = Controller(dict(os.environ), Path({str(tmp_path)!r})).snapshot();"
        "sys.exit(0 if found.rows[0].job == '1' else 1)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **environment})
        for _ in range(4)
    ]
    assert [process.wait(timeout=30) for process in started] == [0, 0, 0, 0]
    assert calls(bin_) == 1


def test_a_damaged_answer_is_asked_for_again(tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    environment = programs(bin_, "echo '1|N/A|RUNNING|None|N/A|n1|x'")
    controller = Controller(environment, tmp_path, clock=Clock())
    controller.snapshot()
    (kept,) = tmp_path.glob("queue-*.json")
    kept.write_text('{"at": 3, "rows": [')
    assert controller.snapshot().rows[0].job == "1"


def test_a_name_in_another_encoding_hides_nothing(tmp_path: Path) -> None:
    environment = programs(tmp_path / "bin", "printf '1|N/A|RUNNING|None|N/A|n1|caf\\351\\n'")
    (row,) = Controller(environment, tmp_path, clock=Clock()).snapshot().rows
    assert (row.job, row.state) == ("1", "RUNNING")


def test_a_program_that_is_missing_is_an_answer_that_failed(tmp_path: Path) -> None:
    found = Controller({"PATH": str(tmp_path)}, tmp_path, clock=Clock()).snapshot()
    assert "squeue" in found.error
    assert found.rows == ()


def test_ends_are_asked_for_once_and_kept(tmp_path: Path) -> None:
    clock, bin_ = Clock(), tmp_path / "bin"
    rows = "echo '7_1|CANCELLED by 0|0:0|2026-11-21T07:44:02'; echo '7_2|RUNNING|0:0|Unknown'"
    environment = programs(bin_, "true", rows)
    controller = Controller(environment, tmp_path, clock=clock)
    found = controller.with_ends(controller.snapshot(), {"7"}, clock.now)
    assert found.ended["7_1"][0] == "CANCELLED by 0"
    assert "7_2" not in found.ended, "the queue has lost it, so a row that says RUNNING is late"
    controller.with_ends(controller.snapshot(), {"7"}, clock.now)
    assert calls(bin_, "sacct") == 1
    assert "--starttime=" in (bin_ / "calls").read_text()


def test_rows_are_read_as_they_are() -> None:
    rows = list(parse(SQUEUE + "garbage\n"))
    assert [row.name for row in rows] == ["rdtl-1|a b", "rdtl-1", "rdtl-2"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("N/A", [None]),
        ("7", [7]),
        ("5-7%4", [5, 6, 7]),
        ("1,3,7-9", [1, 3, 7, 8, 9]),
        ("0-8:4", [0, 4, 8]),
    ],
)
def test_array_expressions(expression: str, expected: list[int | None]) -> None:
    assert indices(expression) == expected
