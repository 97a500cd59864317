"""The far end of a launcher's connection to a host, without ssh between them."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs import host_task
from jobs.node import NodeTask
from jobs.place import Place
from launcher.core import files
from launcher.core.errors import RdtlError
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir

ROOT = Path(__file__).parents[2]


def begin(folder: Path, script: str, silence_s: float) -> subprocess.Popen[bytes]:
    stage = Stage("run", ("sh", "-c", script), own_code=False, working_directory=str(folder))
    files.write_json(folder / "plan.json", Plan("p", "hosts", (stage,), {}).to_dict())
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "jobs.host_task"],
        env={"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    task = NodeTask(str(folder), "run", 0, 1)
    said = host_task.order(task, None, {"FROM_LAUNCHER": "a b"}, silence_s)
    assert process.stdin is not None
    process.stdin.write(said + host_task.ALIVE)  # together: not a byte of them may be lost
    process.stdin.flush()
    deadline = time.monotonic() + 20
    while not (folder / "began").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    return process


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_what_the_launcher_sends_is_what_the_program_sees(tmp_path: Path) -> None:
    process = begin(tmp_path, 'printf %s "$FROM_LAUNCHER" >began; exit 9', 60)
    assert process.wait(20) == 9
    assert (tmp_path / "began").read_text() == "a b"
    assert RunDir(tmp_path).ledger.exit_codes("run", 0, 1) == {0: 9}


@pytest.mark.parametrize("way", [pytest.param("silence", marks=pytest.mark.slow), "end of file"])
def test_without_a_launcher_everything_is_killed(way: str, tmp_path: Path) -> None:
    """Also what a program has started in the background; heartbeats keep all of it alive."""
    process = begin(tmp_path, "sleep 600 & echo $! >pid; touch began; wait", 3)
    assert process.stdin is not None
    for _ in range(7):  # longer than the silence that ends it
        time.sleep(0.5)
        process.stdin.write(host_task.ALIVE)
        process.stdin.flush()
    assert process.poll() is None
    if way == "end of file":
        process.stdin.close()
    assert process.wait(20) == -9
    deadline = time.monotonic() + 20
    while not gone(int((tmp_path / "pid").read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert RunDir(tmp_path).ledger.exit_codes("run", 0, 1) == {}


def test_the_first_node_refuses_a_rendezvous_port_that_is_taken(tmp_path: Path) -> None:
    stage = Stage("run", ("true",), nodes=2, own_code=False)
    files.write_json(tmp_path / "plan.json", Plan("p", "hosts", (stage,), {}).to_dict())
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        place = Place(0, 2, "127.0.0.1", taken.getsockname()[1])
        with pytest.raises(RdtlError) as refused:
            NodeTask(str(tmp_path), "run", 0, 1)(place)
    assert refused.value.problem.code == "RDTL-S007"
    failed = RunDir(tmp_path).ledger.failure("run", 0, 1)
    assert failed and failed["error"]["code"] == "RDTL-S007"
