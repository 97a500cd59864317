"""What a program has started and left, when it is told to end or fails: nothing stays on a GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.node import NodeTask
from launcher.core import dag_processes, files
from launcher.core.errors import RdtlError
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir

ROOT = Path(__file__).parents[2]
SAVES = """
import signal, subprocess, sys, time
from pathlib import Path
def end(number, frame):
    with open("heard", "a") as file:
        print(number, file=file)
    sys.exit(number)
for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, end)
helper = subprocess.Popen(["sleep", "600"])
try:
    Path("began").touch()
    time.sleep(600)
finally:
    time.sleep(2)
    assert helper.poll() is None, "its own helpers are ended by itself alone"
    Path("saved").touch()
"""


def begin(folder: Path, script: str) -> subprocess.Popen[bytes]:
    stage = Stage("run", ("bash", "-c", script), own_code=False, working_directory=str(folder))
    files.write_json(folder / "plan.json", Plan("p", "local", (stage,), {}).to_dict())
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "jobs.node", str(folder), "run", "0", "1"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("what", ["no such file", "no execute bit", "no such directory"])
def test_a_program_that_cannot_be_started_is_said(what: str, tmp_path: Path) -> None:
    """In the ledger, where the launcher looks, and in the stage's log."""
    (tmp_path / "plain.sh").write_text("#!/bin/sh\n")
    if what != "no execute bit":
        (tmp_path / "plain.sh").unlink()
    place = tmp_path / "gone" if what == "no such directory" else tmp_path
    argv = ("true",) if what == "no such directory" else ("./plain.sh",)
    run = RunDir(tmp_path)
    stage = Stage("run", argv, own_code=False, working_directory=str(place))
    files.write_json(run.plan, Plan("p", "local", (stage,), {}).to_dict())
    with pytest.raises(RdtlError, match=f"S060.*{argv[0]} cannot be started"):
        NodeTask(str(tmp_path), "run", 0, 1)()
    failure = run.ledger.failure("run", 0, 1)
    assert failure is not None and failure["error"]["code"] == "RDTL-S060"
    assert "RDTL-S060" in run.log("run", 1, 0, 0).read_text()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGTERM, 143, id="TERM", marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR2, 85, id="USR2"),
    ],
)
def test_a_program_below_a_shell_hears_once_and_may_save(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """The shell dies at once and tells nobody."""
    (tmp_path / "saves.py").write_text(SAVES)
    node = begin(tmp_path, f"{sys.executable} saves.py; true")
    deadline = time.monotonic() + 30
    while not (tmp_path / "began").exists():
        assert time.monotonic() < deadline and node.poll() is None
        time.sleep(0.02)
    node.send_signal(number)
    node.wait(30)
    assert (tmp_path / "heard").read_text().split() == [str(int(number))]
    assert (tmp_path / "saved").exists()
    assert RunDir(tmp_path).ledger.exit_codes("run", 0, 1) == {0: code}


def test_a_program_that_fails_leaves_nothing(tmp_path: Path) -> None:
    node = begin(tmp_path, "sleep 600 & echo $! >pid; exit 3")
    node.wait(30)
    assert dag_processes.of(int((tmp_path / "pid").read_text())).start_time == 0
    assert RunDir(tmp_path).ledger.exit_codes("run", 0, 1) == {0: 3}


def test_what_does_not_listen_is_killed(tmp_path: Path) -> None:
    """After the grace of all children, here a shorter one."""
    deaf = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo; while :; do sleep 0.05; done"],
        env={**os.environ, dag_processes.TASK: str(tmp_path)}, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert deaf.stdout and deaf.stdout.readline()
    dag_processes.tell_children(str(tmp_path), [], 0.3)
    assert deaf.wait(5) == -signal.SIGKILL
