"""A cluster that is reached over a real sshd: same commands, cut connections, changed keys."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from launcher.core.runs import RunDir
from tests.cli.run_rdtl import rdtl
from tests.integration.login_node import LoginNode, key, login_node, site

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts Slurm in network namespaces: needs root"),
    pytest.mark.skipif(
        None in [shutil.which(name) for name in ("slurmctld", "sshd", "rsync")],
        reason="Slurm, sshd or rsync is not installed",
    ),
]


@pytest.fixture(scope="module")
def node(cluster: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoginNode]:
    local = yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text())
    root = Path(local["environment"]["SLURM_CONF"]).parents[1]
    with login_node(tmp_path_factory.mktemp("login") / "node", root) as started:
        yield started


@pytest.fixture
def laptop(node: LoginNode, cluster: Path, tmp_path: Path) -> Iterator[Path]:
    """A git tree with an uncommitted file, and a site that is far away."""
    local = yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text())
    sites = tmp_path / "configs" / "sites"
    sites.mkdir(parents=True)
    command = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-P", "-m", "launcher"]
    (sites / "far.yaml").write_text(site(node, local, command))
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "hello.sh").write_text("echo hello from $(hostname) in 'a  tree'\n")
    yield tmp_path
    closing = ["ssh", "-F", node.config, "-o", "ControlPath=~/.ssh/rdtl-%C", "-O", "exit", "login"]
    subprocess.run(closing, capture_output=True, check=False)


def test_a_command_of_the_working_tree_runs_on_two_nodes(laptop: Path, node: LoginNode) -> None:
    done = rdtl("run", "--site", "far", "--nodes", "2", "--", "sh", "hello.sh", cwd=laptop)
    assert done.returncode == 0, done.stderr
    lines = sorted(line.partition("] ")[2] for line in done.stdout.splitlines())
    assert lines == [f"hello from n{number} in a  tree" for number in (1, 2)]
    assert not (laptop / "runs").exists()
    assert list((node.folder / "far" / "runs").glob("run-*-far/plan.json"))


def test_words_and_exit_codes_pass(laptop: Path) -> None:
    odd = "a 'b' \"c\" $HOME `id` ü\nnew"
    done = rdtl("run", "--site", "far", "--", "printf", "%s", odd, cwd=laptop)
    assert done.stdout.rstrip("\n") == odd
    failed = rdtl("run", "--site", "far", "--", "sh", "-c", "exit 9", cwd=laptop)
    assert failed.returncode == 1
    assert "exit code 9" in failed.stderr
    refused = rdtl("run", "--site", "far", "--nodes", "99", "--", "true", cwd=laptop)
    assert refused.returncode == 2


@pytest.mark.slow
def test_a_cut_connection_is_opened_again_and_nothing_runs_twice(
    laptop: Path, node: LoginNode
) -> None:
    words = ["run", "--site", "far", "--name", "cut", "--", "sh", "-c",
             "echo once >>$RDTL_RUN_DIR/count; sleep 6; echo end"]  # fmt: skip
    run = RunDir(node.folder / "far" / "runs" / "cut-far")
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "launcher", *words], cwd=laptop, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as launcher:  # fmt: skip
        deadline = time.monotonic() + 60
        while not (run.root / "count").exists():
            assert launcher.poll() is None, launcher.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for session in node.sessions():
            os.kill(session, 9)
        out, err = launcher.communicate(timeout=90)
    assert launcher.returncode == 0, err
    assert "trying again" in err
    assert out.split()[-1] == "end"
    assert (run.root / "count").read_text() == "once\n"
    assert run.ledger.attempts("run") == [1]


@pytest.mark.slow
def test_reuse_only_never_asks(laptop: Path) -> None:
    words = ("run", "--site", "far", "--reuse-only", "--", "true")
    closed = rdtl(*words, cwd=laptop)
    assert closed.returncode == 4
    assert "RDTL-S024" in closed.stderr
    assert rdtl("run", "--site", "far", "--", "true", cwd=laptop).returncode == 0
    assert rdtl(*words, cwd=laptop).returncode == 0


def test_a_changed_host_key_is_named(laptop: Path, node: LoginNode) -> None:
    known = node.folder / "known"
    before = known.read_text()
    key(laptop / "other")
    public = (laptop / "other.pub").read_text().split()[1]
    address, kind, _, *_ = before.split()
    known.write_text(f"{address} {kind} {public}\n")
    try:
        done = rdtl("run", "--site", "far", "--", "true", cwd=laptop)
    finally:
        known.write_text(before)
    assert done.returncode == 4
    assert "RDTL-B013" in done.stderr


def test_runs_of_a_far_cluster_are_looked_at_and_fetched(laptop: Path) -> None:
    script = (
        'mkdir -p "$RDTL_RUN_DIR/report"; echo fine >"$RDTL_RUN_DIR/report/index.html"; echo hi'
    )
    made = rdtl("run", "--site", "far", "--name", "look", "--", "sh", "-c", script, cwd=laptop)
    assert made.returncode == 0, made.stderr
    shown = rdtl("runs", "show", "look", "--site", "far", cwd=laptop)
    assert "look-far: done" in shown.stdout, shown.stderr
    assert "look-far" in rdtl("runs", "list", "--site", "far", cwd=laptop).stdout
    assert rdtl("runs", "logs", "look", "--site", "far", cwd=laptop).stdout.split() == ["hi"]
    copied = rdtl("runs", "fetch", "look", "here", "--site", "far", cwd=laptop)
    assert copied.returncode == 0, copied.stderr
    assert (laptop / "here" / "report" / "index.html").read_text() == "fine\n"
    assert (laptop / "here" / "lock.json").exists()
    missing = rdtl("runs", "fetch", "nothing-far", "there", "--site", "far", cwd=laptop)
    assert missing.returncode == 4
    assert not (laptop / "there").exists()
