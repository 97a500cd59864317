"""The test engine itself: safe to kill, to repeat, and gone without a trace."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import processes
from tests.cluster.layout import REPOSITORY, tag_of
from tests.images import engine, provision, small

VERB = [sys.executable, "-m", "tests.images.engine"]


@pytest.fixture
def root() -> Iterator[Path]:
    """Place of a private engine, stopped in the end; the shared one is left alone."""
    if reason := small.unavailable("docker"):
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="rdtl-e-"))
    try:
        yield folder / "e"
    finally:
        call("down", folder / "e")
        shutil.rmtree(folder)


def call(verb: str, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*VERB, verb, "--root", str(root)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def docker(root: Path, *arguments: str) -> str:
    return subprocess.run(
        [engine.CLIENT, *arguments],
        env=engine.environment(root),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout


def traces(root: Path) -> list[str]:
    """Processes, mounts, control groups and files that belong to the engine in ``root``."""
    found = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{tag_of(root)}")]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if str(root) in line]
    for pid in processes.all_pids():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"{root}/" in words:
            found.append(f"{pid}: {words}")
    return found + ([str(root)] if root.exists() else [])


def first_process(root: Path) -> int:
    return processes.recorded(root / "run")["engine"].pid


def test_up_runs_containers_and_down_leaves_nothing(root: Path) -> None:
    assert call("up", root).returncode == 0
    assert (root / "builder.yaml").read_text().count(str(root)) == 1  # the engine's address
    again = call("up", root)
    assert (again.returncode, again.stdout.split()[0]) == (0, "already"), again.stderr
    name = docker(root, "load", "--quiet", "-i", str(provision.base_archive())).split(": ")[1]
    docker(root, "run", "-d", "--network", "host", name.strip(), "sleep", "600")
    assert traces(root) != [str(root)]
    assert call("down", root).returncode == 0
    assert traces(root) == []


def test_what_a_killed_engine_leaves_is_replaced(root: Path) -> None:
    assert call("up", root).returncode == 0
    os.kill(first_process(root), signal.SIGKILL)
    processes.wait_until(lambda: "broken" in call("status", root).stdout, 10, "notice of the kill")
    assert call("up", root).returncode == 0
    assert docker(root, "ps", "-q") == ""


def test_a_start_killed_at_any_moment_can_be_repeated(root: Path) -> None:
    for seconds in (0.1, 0.2, 0.4):
        with subprocess.Popen(
            [*VERB, "up", "--root", str(root)],
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as starting:
            time.sleep(seconds)
            starting.kill()
    assert call("up", root).returncode == 0
    assert docker(root, "ps", "-q") == ""


def test_a_directory_of_somebody_else_is_left_alone(root: Path) -> None:
    root.mkdir()
    (root / "mine").write_text("keep")
    done = call("up", root)
    assert (done.returncode, "holds no test engine" in done.stderr) == (2, True)
    assert call("down", root).returncode == 2
    assert [path.name for path in root.iterdir()] == ["mine"]
