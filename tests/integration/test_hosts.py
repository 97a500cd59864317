"""Machines without a scheduler, over a real sshd: what runs there, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.create import create
from tests.cli.run_rdtl import rdtl
from tests.integration.ssh_hosts import SshHosts, needs_hosts

pytestmark = [pytest.mark.slurm, needs_hosts]


SAY = 'echo "$(hostname) $RDTL_NODE of $RDTL_NODES to $MASTER_ADDR over $GLOO_SOCKET_IFNAME"'


def test_a_command_runs_on_both_hosts_and_finds_the_others(both: SshHosts, tmp_path: Path) -> None:
    both.site(tmp_path)
    done = rdtl("run", "--site", "hosts", "--nodes", "2", "--", "sh", "-c", SAY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first = both.cluster.node_address("n1")
    lines = sorted(line.partition("] ")[2] for line in done.stdout.splitlines())
    assert lines == [f"n{n} {n - 1} of 2 to {first} over eth0" for n in (1, 2)]


@pytest.mark.slow
def test_nothing_starts_while_a_host_does_not_answer(hosts: SshHosts, tmp_path: Path) -> None:
    hosts.start("n1")
    hosts.site(tmp_path)
    words = ("run", "--site", "hosts", "--name", "r", "--nodes", "2", "--", "true")
    done = rdtl(*words, cwd=tmp_path)
    assert done.returncode == 3 and "error RDTL-S051: host n2 is not reached" in done.stderr
    assert RunDir(tmp_path / "runs" / "r-hosts").ledger.names() == []
    hosts.start("n2")
    again = rdtl(*words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr


def test_the_interface_that_the_others_reach_is_taken(hosts: SshHosts, tmp_path: Path) -> None:
    """Both hosts have docker0 with one and the same address, first in every list."""
    bridge = "ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0"
    for name in hosts.cluster.node_names:
        hosts.start(name, script=f"{bridge} && ip link set docker0 up")
    hosts.site(tmp_path)
    try:
        done = rdtl("run", "--site", "hosts", "--nodes", "2", "--", "sh", "-c", SAY, cwd=tmp_path)
    finally:
        for name in hosts.cluster.node_names:
            inside = ["ip", "-n", hosts.cluster.namespace(name)]
            subprocess.run([*inside, "link", "del", "docker0"], check=True)
    assert done.stdout.count("over eth0") == 2, done.stderr


def begin(folder: Path, script: str) -> subprocess.Popen[str]:
    """Start ``script`` on both hosts and wait until it runs on both."""
    words = ["run", "--site", "hosts", "--name", "r", "--nodes", "2", "--", "sh", "-c"]
    launcher = subprocess.Popen(
        [sys.executable, "-P", "-m", "launcher", *words, f"touch at.$RDTL_NODE; {script}"],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not all((folder / f"at.{node}").exists() for node in (0, 1)):
        assert launcher.poll() is None, launcher.communicate()
        assert time.monotonic() < deadline, "it never started"
        time.sleep(0.02)
    return launcher


def nothing_left(hosts: SshHosts) -> None:
    deadline = time.monotonic() + 20
    names = hosts.cluster.node_names
    while left := [line for name in names for line in hosts.processes(name)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


LISTEN = "trap 'echo saved >>saved; exit {code}' {signal}; while :; do sleep 0.05; done"


def test_a_host_that_dies_ends_the_task_on_the_other(both: SshHosts, tmp_path: Path) -> None:
    both.site(tmp_path)
    launcher = begin(tmp_path, "sleep 600")
    both.kill("n2")
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 1
    assert "error RDTL-S056: host n2 was lost" in said
    nothing_left(both)
    events = RunDir(tmp_path / "runs" / "r-hosts").ledger.finished("run", 0, 1)
    assert {node: event["exit_code"] for node, event in events.items()} == {0: 143, 1: 255}
    both.start("n2")
    again = rdtl("runs", "show", "r-hosts", cwd=tmp_path)
    assert "host n2 was lost" in again.stdout, again.stderr


@pytest.mark.slow
def test_a_failure_on_one_host_ends_the_other_and_keeps_its_code(
    both: SshHosts, tmp_path: Path
) -> None:
    both.site(tmp_path)
    launcher = begin(tmp_path, "[ $RDTL_NODE = 0 ] || exit 7; sleep 600")
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 1 and "exit code 7" in said
    nothing_left(both)


def test_a_launcher_that_is_killed_leaves_nothing_behind(both: SshHosts, tmp_path: Path) -> None:
    both.site(tmp_path)
    launcher = begin(tmp_path, LISTEN.format(signal="TERM", code=0))
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.communicate()
    nothing_left(both)
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("sent", "heard", "code", "status", "said"),
    [
        pytest.param(signal.SIGINT, "TERM", 86, 130, "", marks=pytest.mark.slow),
        (signal.SIGTERM, "TERM", 86, 130, ""),
        (signal.SIGUSR2, "USR2", 85, 1, "RDTL-S036"),
    ],
)
def test_signals_reach_every_host(
    both: SshHosts, tmp_path: Path, sent: int, heard: str, code: int, status: int, said: str
) -> None:
    both.site(tmp_path)
    launcher = begin(tmp_path, LISTEN.format(signal=heard, code=code))
    os.kill(launcher.pid, sent)
    _, words = launcher.communicate(timeout=60)
    assert launcher.returncode == status and said in words, words
    assert (tmp_path / "saved").read_text() == "saved\nsaved\n"
    codes = RunDir(tmp_path / "runs" / "r-hosts").ledger.exit_codes("run", 0, 1)
    assert codes == {0: code, 1: code}


@pytest.mark.slow
def test_a_host_that_falls_silent_is_lost_too(both: SshHosts, tmp_path: Path) -> None:
    """Its cable is pulled: no connection is closed, nothing answers any more."""
    both.site(tmp_path)
    switch = ["ip", "-n", both.cluster.namespace("switch"), "link", "set", "n2"]
    launcher = begin(tmp_path, "sleep 600")
    began = time.monotonic()
    subprocess.run([*switch, "down"], check=True)
    try:
        _, said = launcher.communicate(timeout=120)
        assert launcher.returncode == 1 and "error RDTL-S056: host n2 was lost" in said, said
        assert time.monotonic() - began < 90
        assert not both.processes("n1")
    finally:
        subprocess.run([*switch, "up"], check=True)


@pytest.mark.slow
def test_tasks_wait_for_free_slots(both: SshHosts, tmp_path: Path) -> None:
    """Five tasks on three slots: never more at once on a host than it has, and both are used."""
    both.site(tmp_path, hosts=[{"host": "n1", "slots": 2}, "n2"])
    script = (
        'date +"$(hostname) %s.%N" >began.$RDTL_INDEX; sleep 0.5; date +%s.%N >ended.$RDTL_INDEX'
    )
    run = RunDir(tmp_path / "runs" / "five-hosts")
    stage = Stage("run", ("sh", "-c", script), array=5, own_code=False)
    create(run, Plan("five", "hosts", (stage,), {"command": ["sh"]}), "{}")
    done = rdtl("runs", "resume", "five-hosts", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    spans: dict[str, list[tuple[float, float]]] = {}
    for index in range(5):
        host, begin_ = (run.root / f"began.{index}").read_text().split()
        end = float((run.root / f"ended.{index}").read_text())
        spans.setdefault(host, []).append((float(begin_), end))
    assert len(spans) == 2
    for host, slots in {"n1": 2, "n2": 1}.items():
        at_once = [sum(a <= t < b for a, b in spans[host]) for t, _ in spans[host]]
        assert max(at_once) <= slots
