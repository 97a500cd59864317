"""``rdtl run`` on a login node: every run has its own copy of the tree that was sent there."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import remote, snapshot
from launcher.core.runs import RunDir
from tests.cli.run_rdtl import rdtl
from tests.staging import servers

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    None in [shutil.which(name) for name in ("sshd", "rsync")],
    reason="sshd or rsync is not installed",
)


@pytest.fixture
def laptop(tmp_path: Path) -> Iterator[Path]:
    """A git tree and a site behind a real sshd; what it starts runs on that machine itself."""
    tree = tmp_path / "laptop"
    (tree / "configs/sites").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", tree], check=True)
    (tree / "mine.sh").write_text("echo first; echo $1 >>made; cat made\n")
    with servers.sshd(tmp_path / "sshd") as (server, words):
        options = [*shlex.split(words)[1:], "-p", str(server.port)]
        python = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-P", "-m", "launcher"]
        site = {"kind": "local", "ssh": "127.0.0.1", "ssh_options": options}
        there = {"remote_directory": str(tmp_path / "far"), "remote_rdtl": python}
        (tree / "configs/sites/far.yaml").write_text(json.dumps({**site, **there}))
        yield tree
        control = ["-o", "ControlPath=~/.ssh/rdtl-%C", "-O", "exit", "127.0.0.1"]
        subprocess.run(["ssh", *options, *control], capture_output=True, check=False)


def test_runs_of_one_tree_share_nothing(laptop: Path, tmp_path: Path) -> None:
    def run(name: str) -> subprocess.CompletedProcess[str]:
        words = ("--name", name, "--", "sh", "mine.sh", name)
        return rdtl("run", "--site", "far", *words, cwd=laptop)

    one = run("one")
    assert one.stdout.split() == ["first", "one"], one.stderr
    assert run("two").stdout.split() == ["first", "two"], "a file of the other run is there"
    work = RunDir(tmp_path / "far/runs/one-far").work
    assert sorted(path.name for path in work.iterdir()) == ["configs", "made", "mine.sh"]
    (laptop / "mine.sh").write_text("echo mended\n")
    older = run("one")
    assert "1 file(s) here differ (mine.sh); another --name" in older.stderr
    assert older.stdout.split() == ["first", "one"], "the run goes on with its copy"
    assert run("three").stdout == "mended\n"


def test_a_sent_tree_is_what_was_sent(
    laptop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a folder below, and where the login node has a repository of its own around it."""
    (laptop / "deep").mkdir()
    (laptop / "deep/a b.py").write_text("")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    site = remote.load(str(laptop / "configs/sites/far.yaml"))
    monkeypatch.chdir(laptop / "deep")
    connection = remote.Connection("127.0.0.1", tuple(site.ssh_options))
    directory = Path(remote.upload(connection, "far", site))
    (directory / "left_by_a_job").write_text("")
    root, found = snapshot.working_files(directory)
    assert root / "deep" == directory
    names = ["configs/sites/far.yaml", "deep/a b.py", "deep/configs/sites/far.yaml", "mine.sh"]
    assert [str(path) for path in found] == names
