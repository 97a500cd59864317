"""``rdtl run`` in a git tree: what is copied into the run, and when the copy is an older one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from launcher import diagnose
from tests.cli.run_rdtl import rdtl


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository of somebody's own, in which nothing is ignored."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "mine.py").write_text("raise SystemExit(3)\n")
    return tmp_path


def test_runs_are_no_code(tree: Path) -> None:
    for name in ("a", "b"):
        rdtl("run", "--name", name, "--", "true", cwd=tree)
    assert (tree / "runs/b-local/work/mine.py").exists()
    assert not (tree / "runs/b-local/work/runs").exists()


def test_a_script_that_was_mended_is_said_not_to_be_the_one_that_runs(tree: Path) -> None:
    again = ("run", "--name", "a", "--", "python3", "mine.py")
    first = rdtl(*again, cwd=tree)
    assert first.returncode == 1
    assert "a mended program: the same command with another --name" in first.stderr
    assert f"rdtl runs resume {tree / 'runs/a-local'}" in first.stderr
    same = rdtl(*again, cwd=tree)
    assert "here differ" not in same.stderr
    (tree / "mine.py").write_text("print('mended')\n")
    (tree / "new.py").write_text("")
    older = rdtl(*again, cwd=tree)
    assert older.returncode == 1, "the run keeps its copy"
    assert "2 file(s) here differ (mine.py, new.py); another --name" in older.stderr
    shown = rdtl("runs", "show", "a-local", "--diff", cwd=tree)
    assert "2 file(s) differ: mine.py, new.py" in shown.stdout
    assert rdtl("run", "--name", "b", "--", "python3", "mine.py", cwd=tree).stdout == "mended\n"


def test_logs_of_the_repository_are_not_those_of_the_run(tree: Path) -> None:
    (tree / "old.log").write_text("RuntimeError: CUDA out of memory\n")
    rdtl("run", "--name", "a", "--", "true", cwd=tree)
    run = tree / "runs/a-local"
    assert (run / "work/old.log").exists()
    assert diagnose.diagnose(run) == []
    assert diagnose.diagnose(run / "work"), "whoever names the copy means it"


def test_a_run_is_found_by_the_name_it_was_given(tree: Path) -> None:
    rdtl("run", "--name", "a", "--", "true", cwd=tree)
    assert "fix     a-local is meant?" in rdtl("runs", "logs", "a", cwd=tree).stderr
    over = rdtl("runs", "cancel", "a-local", cwd=tree)
    assert "nothing of this run is alive" in over.stderr
    assert "resume" not in over.stderr, "it is done"
