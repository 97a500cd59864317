"""``openpi/waypoint-ae`` on a bare machine that only a real sshd leads to, among stand-ins."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.login_node import key
from tests.recipes.openpi_box import CANARY, Box
from tests.recipes.standins import world as worlds

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("sshd") is None, reason="starts sshd: needs root"
    ),
]


class Loopback:
    """A box whose sshd listens on this machine's loopback, and somebody who knows it."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box, self.folder = box, folder
        folder.mkdir(mode=0o700)
        for name in ("host", "user"):
            key(folder / name)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        words = " ".join(f'"{name}={value}"' for name, value in box.environment.items())
        (folder / "sshd.conf").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
            f"AuthorizedKeysFile {folder}/user.pub\nPasswordAuthentication no\nStrictModes no\n"
            f"PermitRootLogin yes\nUsePAM no\nPidFile none\nSetEnv {words}\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        self.server = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-e", "-f", folder / "sshd.conf"],
            stderr=(folder / "sshd.log").open("wb"),
        )
        self.env = {
            "RCLONE_TOKEN": f'{{"access_token":"{CANARY}"}}',
            "WANDB_API_KEY": f"wandb_v1_{CANARY}",
            "XDG_STATE_HOME": str(folder / "state"),
        }

    def argv(self, verb: str, *more: str) -> list[str]:
        recipe = "configs/recipes/openpi/waypoint-ae.yaml"
        words = [
            "--host",
            f"ssh://root@127.0.0.1:{self.port}",
            f"--ssh-option=-i{self.folder}/user",
        ]
        start = [sys.executable, "-P", "-m", "launcher", "recipe", verb, recipe]
        return [*start, *words, "--ssh-option=-oIdentitiesOnly=yes", *more]

    def begin(self, verb: str, *more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(verb, *more), cwd=ROOT, env={**os.environ, **self.env}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def end(self) -> None:
        self.server.terminate()
        self.server.wait()


@pytest.fixture
def loopback(tmp_path: Path) -> Iterator[Loopback]:
    with worlds.world(tmp_path / "world") as world:
        made = Loopback(Box(world, tmp_path / "machine"), tmp_path / "ssh")
        try:
            yield made
        finally:
            made.end()


def test_killed_and_attached_again_it_ends_in_proven_checkpoints(loopback: Loopback) -> None:
    values = [
        word for n, v in loopback.box.world.settings.items() for word in ("--set", f"{n}={v}")
    ]
    client = loopback.begin("run", *values)
    assert client.stderr is not None
    told = []
    deadline = time.monotonic() + 120
    while not any("uv_sync: begins" in line for line in told):
        assert client.poll() is None and time.monotonic() < deadline, told
        told.append(client.stderr.readline())
    client.kill()
    client.communicate()
    out, err = loopback.begin("attach", "--json").communicate(timeout=300)
    found = json.loads(out)
    assert found["rc"] == 0, err
    assert {step["state"] for step in found["steps"].values()} == {"done"}
    assert found["steps"]["train"]["step"] == "15"  # every fifth is told
    uploaded = loopback.box.world.folder / "drive/runs/ae/fixed/20"
    assert sorted(path.name for path in uploaded.iterdir()) == [
        "metadata.pt", "model.safetensors", "optimizer.pt",
    ]  # fmt: skip
    again, err = loopback.begin("run", *values, "--json").communicate(timeout=300)
    states = {name: step["state"] for name, step in json.loads(again)["steps"].items()}
    assert {name for name, state in states.items() if state != "skipped"} == {"upload"}, err
    for path in (path for path in loopback.folder.parent.rglob("*") if path.is_file()):
        if path.name != "rclone.conf":  # the one place that rclone needs it in, mode 600
            assert CANARY.encode() not in path.read_bytes(), path
