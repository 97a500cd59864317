"""``rdtl run`` in a git tree: what is copied into the run, and when the copy is an older one."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launcher import diagnose, snapshot
from launcher.core import files, plan
from launcher.core.plan import Plan
from launcher.core.runs import RunDir
from launcher.create import create
from tests.cli.run_rdtl import rdtl


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository of somebody's own, in which nothing is ignored."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "mine.py").write_text("raise SystemExit(3)\n")
    return tmp_path


@pytest.mark.slow
def test_runs_are_no_code(tree: Path) -> None:
    for name in ("a", "b"):
        rdtl("run", "--name", name, "--", "true", cwd=tree)
    assert (tree / "runs/b-local/work/mine.py").exists()
    assert not (tree / "runs/b-local/work/runs").exists()


@pytest.mark.slow
def test_a_script_that_was_mended_is_said_not_to_be_the_one_that_runs(tree: Path) -> None:
    again = ("run", "--name", "a", "--", "python3", "mine.py")
    first = rdtl(*again, cwd=tree)
    assert first.returncode == 1
    assert "a mended program: the same command with another --name" in first.stderr
    assert f"rdtl runs resume {tree / 'runs/a-local'}" in first.stderr
    same = rdtl(*again, cwd=tree)
    assert "here differ" not in same.stderr and "no files of a git tree" not in same.stderr
    (tree / "mine.py").write_text("print('mended')\n")
    (tree / "new.py").write_text("")
    older = rdtl(*again, cwd=tree)
    assert older.returncode == 1, "the run keeps its copy"
    assert "2 file(s) here differ (mine.py, new.py); another --name" in older.stderr
    shown = rdtl("runs", "show", "a-local", "--diff", cwd=tree)
    assert "2 file(s) differ: mine.py, new.py" in shown.stdout
    assert rdtl("run", "--name", "b", "--", "python3", "mine.py", cwd=tree).stdout == "mended\n"


@pytest.mark.slow
def test_what_a_refused_try_copied_is_not_run(tree: Path) -> None:
    again = ("run", "--name", "a")
    refused = rdtl(*again, "--memory-gb", "9999999", "--", "python3", "mine.py", cwd=tree)
    assert (refused.returncode, "RDTL-U007" in refused.stderr) == (2, True), refused.stderr
    (tree / "mine.py").write_text("print('mended')\n")
    assert rdtl(*again, "--", "python3", "mine.py", cwd=tree).stdout == "mended\n"


KILLED = """
import os, sys
from pathlib import Path
from launcher.core import files, runs
from launcher.core.plan import Plan
from launcher.create import create
whole = files.whole_file
def write(path):
    path.name == sys.argv[3] and os.kill(os.getpid(), 9)
    return whole(path)
files.whole_file = write
files.publish_once = lambda path, data: write(path)
create(runs.RunDir(Path(sys.argv[1])), Plan("p", "s", (), {}), "", Path(sys.argv[2]))
"""


def test_what_a_killed_creation_copied_is_not_run(tree: Path) -> None:
    """Each try finds the copies of the one before, and the code of both has changed since."""
    run = RunDir(tree / "runs/a")
    for file in ("lock.json", "plan.json"):
        words = [sys.executable, "-c", KILLED, run.root, tree, file]
        assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
        (run.code / "launcher/__init__.py").unlink()
        (run.code / "rdt/removed_since.py").write_text("")
        (tree / "mine.py").write_text(f"print('after {file}')\n")
        (tree / file).write_text("")
    (tree / "lock.json").unlink()
    create(run, Plan("p", "s", (), {}), "", tree)
    assert (run.work / "mine.py").read_text() == "print('after plan.json')\n"
    assert sorted(path.name for path in run.work.iterdir()) == ["mine.py", "plan.json"]
    assert not (run.code / "rdt/removed_since.py").exists()
    assert files.read_json(run.lock)["code_sha256"] == snapshot.code_digest(run.code)
    assert (run.code / "launcher/__init__.py").exists()


def test_of_launchers_that_begin_at_once_one_makes_the_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "PACKAGES", ("jobs",))
    trees = [tmp_path / f"{number}" for number in range(4)]
    for one in trees:
        subprocess.run(["git", "init", "-q", one], check=True)
        for number in range(20):
            (one / f"{number}.py").write_text(one.name)
    run = RunDir(tmp_path / "run")
    ready = threading.Barrier(len(trees))

    def begin(tree: Path) -> str:
        ready.wait()
        made = create(run, Plan("p", "s", (), {"by": "any"}), "", tree)
        assert made == plan.read(run.plan)
        return "".join((run.work / f"{number}.py").read_text() for number in range(20))

    with ThreadPoolExecutor(len(trees)) as pool:
        found = list(pool.map(begin, trees))
    assert len(set(found)) == 1 and len(set(found[0])) == 1, found
    left = {path.name for path in run.root.iterdir()}
    assert left == {"plan.json", "lock.json", "run.yaml", "code", "work", "creating.lock"}


@pytest.mark.parametrize("lock", ["mine", "unlockable"])
def test_a_run_that_another_node_made_meanwhile_keeps_its_code(
    tree: Path, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    """``mine``: file systems whose locks hold on one node only."""
    monkeypatch.setattr("launcher.create.held", lambda *_: contextlib.nullcontext(lock))
    monkeypatch.setattr(snapshot, "PACKAGES", ("jobs",))
    run, new = RunDir(tree / "run"), Plan("p", "s", (), {})
    copy, seen = shutil.copy2, []

    def slow(source: Path, target: Path) -> None:
        if "jobs" in target.parts and not seen:
            seen.append(0)
            create(run, new, "theirs", tree)
            seen.append(run.code.stat().st_ino)
        copy(source, target)

    monkeypatch.setattr(shutil, "copy2", slow)
    assert create(run, new, "ours", tree) == new
    assert seen == [0, run.code.stat().st_ino]
    assert run.config.read_text() == "theirs"
    assert files.read_json(run.lock)["code_sha256"] == snapshot.code_digest(run.code)
    assert not list(run.root.glob(".*")), "nothing is left of ours"


@pytest.mark.slow
def test_logs_of_the_repository_are_not_those_of_the_run(tree: Path) -> None:
    (tree / "old.log").write_text("RuntimeError: CUDA out of memory\n")
    rdtl("run", "--name", "a", "--", "true", cwd=tree)
    run = tree / "runs/a-local"
    assert (run / "work/old.log").exists()
    assert diagnose.diagnose(run) == []
    assert diagnose.diagnose(run / "work"), "whoever names the copy means it"


@pytest.mark.slow
def test_a_run_is_found_by_the_name_it_was_given(tree: Path) -> None:
    rdtl("run", "--name", "a", "--", "true", cwd=tree)
    assert "fix     a-local is meant?" in rdtl("runs", "logs", "a", cwd=tree).stderr
    over = rdtl("runs", "cancel", "a-local", cwd=tree)
    assert "nothing of this run is alive" in over.stderr
    assert "resume" not in over.stderr, "it is done"
