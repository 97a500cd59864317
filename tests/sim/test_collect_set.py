"""``rdtl data collect``: killed, continued, refused, and what the expert cannot do."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.presets import JOB_ENVIRONMENT
from launcher.schema import Collect, Task
from rdt.data.checks import verify_set
from rdt.data.declared import DeclaredSet
from rdt.data.store import open_store
from rdt.spec.contract import CONTRACTS
from tests.cli.run_rdtl import rdtl

pytestmark = pytest.mark.sim
BOWL = "pick_up_the_black_bowl_next_to_the_plate_and_place_it_on_the_plate"
DRAWER = "pick_up_the_black_bowl_in_the_top_drawer_of_the_wooden_cabinet_and_place_it_on_the_plate"


def request(out: Path, tasks: list[int], processes: int = 1) -> dict[str, Any]:
    """What the command asks of the program, for short episodes from initial state 0."""
    settings = {"demos": 2, "render_every": 60, "init_states": (0, 1), "noise": 0.05}
    return {
        "out": str(out),
        "tasks": tasks,
        "task": Task(suite="libero_spatial", camera_size=64, max_steps=110).model_dump(mode="json"),
        "collect": Collect(**settings).model_dump(mode="json"),
        "seed": 7,
        "processes": processes,
    }


def start(asked: dict[str, Any]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "jobs.collect_set", json.dumps(asked)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **JOB_ENVIRONMENT},
    )


def finish(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """All answers of a run to the end."""
    with start(asked) as process:
        said, _ = process.communicate(timeout=300)
    return [json.loads(line) for line in said.splitlines()]


def until(process: subprocess.Popen[str], word: str) -> dict[str, Any]:
    """The next answer with ``word``."""
    assert process.stdout is not None
    for line in process.stdout:
        answer: dict[str, Any] = json.loads(line)
        if word in answer:
            return answer
    raise AssertionError(f"the program ended without {word}")


def workers(process: subprocess.Popen[str]) -> list[int]:
    """Processes that it started to make demonstrations."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()
    ]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_killed_continued_and_what_the_expert_cannot_do(tmp_path: Path) -> None:
    """The bowl beside the plate takes some 90 steps; from the drawer 110 are too few."""
    asked = request(tmp_path, [8, 4])
    folder = tmp_path / "libero_spatial"
    first = folder / ".parts" / BOWL / "demo_000.part"
    with start(asked) as process:
        assert until(process, "plan")["plan"]["there"] == 0
        until(process, "made")
        (worker,) = workers(process)
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{worker}").exists())
    assert list(first.parent.glob("[!.]*")) == [first]
    made = first.stat().st_mtime_ns
    with start(asked) as process:
        assert until(process, "plan")["plan"]["there"] == 1
        wait_until(lambda: bool(workers(process)))
        os.kill(workers(process)[0], signal.SIGKILL)
        assert until(process, "error")["error"]["code"] == "RDTL-D073"
    assert first.stat().st_mtime_ns == made

    answers = finish(asked)
    assert [answer["made"]["line"].split(":")[0] for answer in answers if "made" in answer] == [
        "demo_1"
    ]
    bowl, drawer = answers[-1]["result"]["tasks"]
    assert (bowl["task"], bowl["demos"], bowl["error"]) == (BOWL, 2, None)
    assert (drawer["task"], drawer["demos"], drawer["file"]) == (DRAWER, 0, None)
    assert drawer["error"]["code"] == "RDTL-D040"
    assert sorted(path.name for path in folder.rglob("*.hdf5")) == [f"{BOWL}_demo.hdf5"]
    assert not (folder / ".parts" / BOWL).exists()
    _is_read(folder, bowl["steps"])
    _is_refused(folder, asked)


def _is_read(folder: Path, steps: int) -> None:
    store = open_store(folder)
    assert store.conventions.alignment == "before"
    assert [(episode.name, episode.task) for episode in store.episodes] == [
        ("demo_0", BOWL),
        ("demo_1", BOWL),
    ]
    assert sum(episode.length for episode in store.episodes) == steps
    findings = verify_set(DeclaredSet(folder), CONTRACTS["libero-velocity"], None)
    assert [finding for finding in findings if finding.severity == "error"] == []
    assert {"RDTL-D001", "RDTL-D015", "RDTL-D016", "RDTL-D027"} <= {
        finding.code for finding in findings if finding.severity == "ok"
    }


def _is_refused(folder: Path, asked: dict[str, Any]) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.hdf5")}
    other = {**asked, "collect": {**asked["collect"], "noise": 0.1}, "tasks": [0]}
    (error,) = finish(other)
    assert error["error"]["code"] == "RDTL-D070"
    assert "collect.noise is 0.05 there and 0.1 here" in error["error"]["where"]
    with (folder / ".collecting").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (error,) = finish(asked)
    assert error["error"]["code"] == "RDTL-D071"
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.hdf5")}
    (path,) = before
    path.write_bytes(path.read_bytes()[:50_000])
    (error,) = finish({**asked, "tasks": [8]})
    assert error["error"]["code"] == "RDTL-D042"
    assert path.stat().st_size == 50_000


def test_no_noise_is_refused(tmp_path: Path) -> None:
    done = rdtl(
        "data", "collect", "o", "--suite", "libero_object", "--noise", "0", "--json", cwd=tmp_path
    )
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "RDTL-D074"
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_the_files_do_not_depend_on_kills_and_processes(tmp_path: Path) -> None:
    """The command itself, killed at growing ages until it is done, against one undisturbed."""
    whole = request(tmp_path / "whole", [8, 0], processes=2)
    assert "result" in finish(whole)[-1]
    cut = request(tmp_path / "cut", [8, 0])
    for age in range(8, 200, 4):
        with start(cut) as process:
            try:
                process.wait(timeout=age)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        if process.returncode == 0:
            break
    assert process.returncode == 0
    files = sorted((tmp_path / "whole").rglob("*.hdf5"))
    assert len(files) == 2
    for path in files:
        other = tmp_path / "cut" / path.relative_to(tmp_path / "whole")
        assert path.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    options = ["--suite", "libero_object", "--task", "0", "--demos", "1", "--render-every", "60"]
    done = rdtl("data", "collect", "set", *options, "--jobs", "1", cwd=tmp_path, timeout=400)
    assert done.returncode == 0, done.stderr
    assert "1 demonstrations into" in done.stderr
    assert "pick_up_the_alphabet_soup_and_place_it_in_the_basket" in done.stdout
    again = rdtl("data", "collect", "set", *options, "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "1 are there" in again.stderr
    assert json.loads(again.stdout)["tasks"][0]["demos"] == 1
    unknown = rdtl(
        "data", "collect", "other", "--suite", "libero_object", "--task", "10", cwd=tmp_path
    )
    assert unknown.returncode == 2
    assert "RDTL-U020" in unknown.stderr
