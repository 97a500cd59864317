"""Machines without a scheduler: network namespaces with a real sshd and a host name each.

Every host has a mount namespace of its own, so a test can let one of them see another
file in some place, as a machine with another installation does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cluster import layout, network, processes
from tests.cluster.layout import Cluster
from tests.cluster.lock import exclusive
from tests.integration.login_node import key

needs_hosts = pytest.mark.skipif(
    os.geteuid() != 0 or None in [shutil.which(name) for name in ("sshd", "ip")],
    reason="makes network namespaces and starts sshd in them: needs root, sshd and iproute2",
)


@dataclass
class SshHosts:
    """Hosts n1, n2, … that ``ssh -F config n1`` reaches; none runs before :meth:`start`."""

    cluster: Cluster
    folder: Path
    servers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.folder / "ssh.conf"

    def start(self, name: str, *, script: str = "true", path: str = "", more: str = "") -> None:
        """Start sshd; ``script`` runs in the host's namespaces before, ``path`` comes first on
        the PATH of its programs, ``more`` are the first lines of its configuration."""
        settings = self.folder / f"{name}.conf"
        settings.write_text(
            f"{more}\nHostKey {self.folder}/host\nAuthorizedKeysFile {self.folder}/user.pub\n"
            "PasswordAuthentication no\nPermitRootLogin yes\nStrictModes no\nUsePAM no\n"
            f"PidFile none\nSetEnv PATH={path}{os.environ['PATH']}\n"
        )
        inside = ["ip", "netns", "exec", self.cluster.namespace(name), "unshare", "--uts", "--"]
        command = f"hostname {name} && {script} && exec /usr/sbin/sshd -D -e -f {settings}"
        self.servers[name] = subprocess.Popen(
            [*inside, "sh", "-c", command], stderr=(self.folder / f"{name}.log").open("ab")
        )
        deadline = time.monotonic() + 20
        scan = ["ssh-keyscan", "-T", "1", self.cluster.node_address(name)]
        while not subprocess.run(scan, capture_output=True, check=False).stdout:
            assert self.servers[name].poll() is None and time.monotonic() < deadline, "no sshd"
            time.sleep(0.05)

    def kill(self, name: str) -> None:
        """KILL everything on the host, as a power cut would, but its connections are closed."""
        while pids := network.processes_in(self.cluster.namespace(name)):
            processes.kill(pids)
        if name in self.servers:
            self.servers.pop(name).wait()

    def processes(self, name: str) -> list[str]:
        """Command lines of all that runs on the host beside sshd."""
        found = []
        for pid in network.processes_in(self.cluster.namespace(name)):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                continue
            if words and "sshd" not in words:
                found.append(words)
        return found

    def site(self, folder: Path, **more: object) -> None:
        """Write the site ``hosts`` for somebody who works in ``folder``."""
        data = {"kind": "hosts", "hosts": self.cluster.node_names,
                "ssh_options": ["-F", str(self.config)], **more}  # fmt: skip
        (folder / "configs" / "sites").mkdir(parents=True, exist_ok=True)
        (folder / "configs" / "sites" / "hosts.yaml").write_text(json.dumps(data))


@contextmanager
def ssh_hosts(root: Path, count: int = 2) -> Iterator[SshHosts]:
    """Make the network of ``count`` hosts below ``root``, and remove it with all that runs."""
    with exclusive():
        prefix, port = network.choose()
        cluster = Cluster(root, count, False, prefix, port)
        layout.save(cluster, ready=False)
        network.create(cluster)
    made = SshHosts(cluster, root / "ssh")
    made.folder.mkdir(mode=0o700)
    key(made.folder / "host")
    key(made.folder / "user")
    Path("/run/sshd").mkdir(exist_ok=True)
    known, lines = made.folder / "known", []
    public = (made.folder / "host.pub").read_text().strip()
    for name in cluster.node_names:
        lines.append(f"{cluster.node_address(name)} {public}\n")
    known.write_text("".join(lines))
    made.config.write_text(
        "".join(f"Host {n}\n HostName {cluster.node_address(n)}\n" for n in cluster.node_names)
        + f"Host *\n User root\n IdentityFile {made.folder}/user\n IdentitiesOnly yes\n"
        f" UserKnownHostsFile {known}\n StrictHostKeyChecking yes\n"
    )
    try:
        yield made
    finally:
        for name in cluster.node_names:
            made.kill(name)
        network.remove(root)
        shutil.rmtree(root)
