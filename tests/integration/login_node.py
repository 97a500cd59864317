"""A login node: sshd with its own key in a network namespace of the test cluster."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.layout import Cluster, load

PORT = 2222


@dataclass(frozen=True)
class LoginNode:
    """``ssh -F config login`` reaches it; ``server`` is the process of sshd."""

    folder: Path
    config: Path
    server: subprocess.Popen[bytes]

    def sessions(self) -> list[int]:
        """Process ids of sshd's children: one for each open connection."""
        children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children")
        return [int(word) for word in children.read_text().split()]


def key(path: Path) -> None:
    """A new key pair without a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


@contextmanager
def login_node(folder: Path, cluster_root: Path) -> Iterator[LoginNode]:
    """Start sshd on node n1 of the cluster below ``cluster_root``."""
    found = load(cluster_root)
    assert found is not None
    cluster: Cluster = found[0]
    folder.mkdir(mode=0o700)
    key(folder / "host")
    key(folder / "user")
    address = cluster.node_address("n1")
    (folder / "known").write_text(
        f"[{address}]:{PORT} {(folder / 'host.pub').read_text().strip()}\n"
    )
    (folder / "sshd.conf").write_text(
        f"Port {PORT}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\nStrictModes no\n"
        f"UsePAM no\nPidFile none\nSetEnv PATH={os.environ['PATH']}\n"
    )
    config = folder / "ssh.conf"
    config.write_text(
        f"Host login\n HostName {address}\n Port {PORT}\n User root\n"
        f" IdentityFile {folder}/user\n UserKnownHostsFile {folder}/known\n"
        " StrictHostKeyChecking yes\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    inside = ["ip", "netns", "exec", cluster.namespace("n1")]
    server = subprocess.Popen(
        [*inside, "/usr/sbin/sshd", "-D", "-e", "-f", folder / "sshd.conf"],
        stderr=(folder / "sshd.log").open("wb"),
    )
    try:
        _wait(config)
        yield LoginNode(folder, config, server)
    finally:
        server.terminate()
        server.wait()


def _wait(config: Path) -> None:
    deadline = time.monotonic() + 20
    probe = ["ssh", "-F", config, "-o", "ControlPath=none", "login", "true"]
    while subprocess.run(probe, capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, "sshd does not answer"
        time.sleep(0.1)


def site(node: LoginNode, cluster_site: dict[str, object], rdtl: list[str]) -> str:
    """The site file of somebody who reaches the cluster through this node."""
    directory = node.folder / "far"
    more = {"ssh": "login", "ssh_options": ["-F", str(node.config)],
            "remote_directory": str(directory), "remote_rdtl": rdtl}  # fmt: skip
    return json.dumps({**cluster_site, **more})
