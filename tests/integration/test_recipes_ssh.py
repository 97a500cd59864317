"""Recipes on a machine that is reached over a real sshd in a network namespace of its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.run_rdtl import rdtl
from tests.integration.login_node import key
from tests.integration.ssh_hosts import SshHosts, needs_hosts

pytestmark = needs_hosts
CANARY = "canary_5d1f0a77c2"
RECIPE = """
name: far
about: counts how often each step ran
parameters:
  work: {about: folder of all}
  steps: {about: how many lines the second step says, default: 20}
secrets: {TOKEN: what the second step needs}
working_directory: ${work}
steps:
  first:
    script: echo x >> first.runs
    outputs: [first.runs]
    verify: {cheap: test -s first.runs}
    timeout: 10s
  second:
    needs: [first]
    script: |
      echo x >> second.runs
      printf '%s' "$TOKEN" | sha256sum > second.sum
      for i in $(seq 0 "$steps"); do echo "step=$i/$steps loss=0.5"; sleep 0.06; done
      until [ -e go ]; do sleep 0.1; done
    secrets: [TOKEN]
    outputs: [second.sum]
    markers: [{name: step, pattern: 'step=(?P<step>\\d+)/(?P<steps>\\d+) loss=(?P<loss>\\S+)'}]
    verify: {cheap: test -s second.sum}
    timeout: 5m
"""


class Client:
    """Somebody at another machine, with a home and a recipe."""

    def __init__(self, folder: Path, hosts: SshHosts) -> None:
        self.folder, self.hosts = folder, hosts
        self.work = folder / "work"
        self.box = folder / "box"
        self.box.mkdir()
        self.state = folder / "state"
        (folder / "far.yaml").write_text(RECIPE)
        address = hosts.cluster.node_address("n1")
        key_words = [f"--ssh-option=-i{hosts.folder}/user", "--ssh-option=-oIdentitiesOnly=yes"]
        self.where = ["--host", f"ssh://root@{address}:22", *key_words]
        self.env = {"TOKEN": CANARY, "XDG_STATE_HOME": str(self.state)}

    def start_box(self) -> None:
        """The machine, whose users have a home of its own."""
        self.hosts.start("n1", more=f"SetEnv PATH={os.environ['PATH']} HOME={self.box}")

    def __call__(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        return rdtl("recipe", verb, "far.yaml", *self.where, *words, cwd=self.folder, env=self.env)

    def values(self, steps: int = 20) -> list[str]:
        return ["--set", f"work={self.work}", "--set", f"steps={steps}"]

    def let_go(self) -> None:
        """The second step may end."""
        self.work.mkdir(exist_ok=True)
        (self.work / "go").touch()

    def begin(self, verb: str, *words: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-P", "-m", "launcher", "recipe", verb, "far.yaml"]
        return subprocess.Popen(
            [*argv, *self.where, *words], cwd=self.folder, env={**os.environ, **self.env},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def runs(self, step: str) -> int:
        """How often a step really began."""
        path = self.work / f"{step}.runs"
        return len(path.read_text().split()) if path.exists() else 0

    def follow(self, process: subprocess.Popen[str], text: str) -> str:
        """What it says on standard error until ``text`` is among it."""
        assert process.stderr is not None
        said = ""
        while text not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        return said

    def wait_for(self, step: str) -> None:
        deadline = time.monotonic() + 30
        while not self.runs(step):
            assert time.monotonic() < deadline, f"{step} does not begin"
            time.sleep(0.05)


@pytest.fixture
def client(tmp_path: Path, hosts: SshHosts) -> Client:
    made = Client(tmp_path, hosts)
    made.start_box()
    return made


def test_runs_there_and_is_attached_to_after_the_client_was_killed(client: Client) -> None:
    started = client.begin("run", *client.values())
    client.wait_for("second")
    words = command_lines()
    started.send_signal(signal.SIGKILL)
    said = "".join(started.communicate())
    client.let_go()
    attached = client("attach", "--json")
    assert attached.returncode == 0, attached.stderr
    found = json.loads(attached.stdout)
    assert (found["rc"], found["steps"]["second"]["state"]) == (0, "done")
    assert found["steps"]["second"]["step"] == "20"
    assert (client.runs("first"), client.runs("second")) == (1, 1)
    fetched = client("fetch", "second", "--out", "mine")
    assert fetched.returncode == 0, fetched.stderr
    assert (client.folder / "mine/second/second.sum").read_text().endswith("-\n")
    again = client("run", *client.values(), "--json")
    assert {s["state"] for s in json.loads(again.stdout)["steps"].values()} == {"skipped"}
    assert (client.runs("first"), client.runs("second")) == (1, 1)
    told = said + attached.stdout + attached.stderr + again.stdout + again.stderr + str(words)
    require_no_canary(client, told)


def command_lines() -> list[bytes]:
    """Of all processes, on both sides."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.append(path.read_bytes())
    return found


def require_no_canary(client: Client, told: str) -> None:
    """The step had the secret, and nothing that others could read has it."""
    expected = hashlib.sha256(CANARY.encode()).hexdigest()
    assert (client.work / "second.sum").read_text().split()[0] == expected
    assert CANARY not in told
    for path in (path for path in client.folder.rglob("*") if path.is_file()):
        assert CANARY.encode() not in path.read_bytes(), path
    assert not list(Path("/dev/shm").glob("*rdtl*"))


@pytest.mark.slow
def test_a_second_client_attaches_and_another_form_is_refused(client: Client) -> None:
    started = client.begin("run", *client.values())
    client.wait_for("second")
    other = client("run", *client.values(steps=9))
    assert other.returncode == 3
    assert "RDTL-U137" in other.stderr
    same = client.begin("run", *client.values())
    assert same.stderr is not None
    assert "runs already" in same.stderr.readline()
    client.let_go()
    assert same.wait(timeout=60) == 0, same.communicate()
    assert started.wait(timeout=30) == 0, started.communicate()
    assert (client.runs("first"), client.runs("second")) == (1, 1)


@pytest.mark.slow
def test_stop_ends_the_steps_and_run_goes_on(client: Client) -> None:
    started = client.begin("run", *client.values())
    client.wait_for("second")
    assert client("stop").returncode == 0
    out, err = started.communicate(timeout=30)
    assert started.returncode == 4, (out, err)
    assert "RDTL-U139" in err
    assert not [line for line in client.hosts.processes("n1") if "sleep" in line]
    client.let_go()
    done = client("run", *client.values())
    assert done.returncode == 0, done.stderr
    assert (client.runs("first"), client.runs("second")) == (1, 2)


@pytest.mark.slow
def test_another_host_key_is_refused_by_its_code(client: Client) -> None:
    client.let_go()
    assert client("run", *client.values()).returncode == 0
    pinned = next((client.state / "rdtl" / "known_hosts").iterdir())
    client.hosts.kill("n1")
    key_file = client.hosts.folder / "host"
    before = {path: path.read_bytes() for path in (key_file, key_file.with_suffix(".pub"))}
    try:
        for path in before:
            path.unlink()
        key(key_file)
        client.start_box()
        done = client("run", *client.values())
    finally:
        for path, content in before.items():
            path.write_bytes(content)
    assert done.returncode == 4
    assert "RDTL-B013" in done.stderr
    assert f"ssh-keygen -f {pinned}" in done.stderr


@pytest.mark.slow
def test_a_network_that_is_cut_for_a_minute(client: Client) -> None:
    started = client.begin("run", *client.values(steps=600))
    said = client.follow(started, "second: begins")
    inside = ["ip", "netns", "exec", client.hosts.cluster.namespace("n1")]
    cable = ["ip", "link", "set", "eth0"]
    subprocess.run([*inside, *cable, "down"], check=True)
    time.sleep(60)
    assert started.poll() is None, started.communicate()
    subprocess.run([*inside, *cable, "up"], check=True)
    client.let_go()
    _, err = started.communicate(timeout=120)
    err = said + err
    assert started.returncode == 0, err
    assert "trying again" in err
    assert err.count("second: begins") == err.count("second: done") == 1
    assert (client.runs("first"), client.runs("second")) == (1, 1)


@pytest.mark.slow
def test_a_machine_that_starts_again_goes_on_with_the_unfinished_step(client: Client) -> None:
    started = client.begin("run", *client.values())
    said = client.follow(started, "second: begins")
    client.hosts.kill("n1")
    client.start_box()
    _, err = started.communicate(timeout=120)
    assert started.returncode == 4, said + err
    assert "the runner is gone" in err
    client.let_go()
    done = client("run", *client.values())
    assert done.returncode == 0, done.stderr
    assert (client.runs("first"), client.runs("second")) == (1, 2)
