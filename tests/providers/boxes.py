"""Machines behind the instances of the fake provider: sshd in process and mount namespaces.

What runs on a box dies with it, as with a machine that is switched off, and its boot id changes
with each boot. Only its GPUs are made up: a program called nvidia-smi says what the test wrote.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.login_node import key
from tests.staging.servers import free_port, listens

needs_boxes = pytest.mark.skipif(
    os.geteuid() != 0 or None in [shutil.which(name) for name in ("sshd", "unshare")],
    reason="starts sshd in namespaces: needs root, sshd and unshare",
)
SMI = """#!/bin/sh
[ -e "{root}/asleep" ] && sleep 60
case "$*" in
*--query-gpu=name,memory.total,driver_version*) cat "{root}/gpus.csv" ;;
*) echo "| NVIDIA-SMI 570.124.06   Driver Version: 570.124.06   CUDA Version: 12.8 |" ;;
esac
"""


class Boxes:
    """The machines of a data centre below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.gpu: dict[int, str] = {}
        """By machine: what nvidia-smi calls its GPUs; others have what was offered."""
        self.asleep: set[int] = set()
        """Machines whose driver does not answer."""
        self.servers: dict[int, subprocess.Popen[bytes]] = {}
        self.ports: dict[int, int] = {}

    def folder(self, instance: int) -> Path:
        """The disk of a box."""
        return self.root / str(instance)

    def boot(self, instance: dict[str, Any]) -> tuple[str, int]:
        """Start sshd; a box that was off keeps its disk and its port."""
        number = instance["id"]
        folder = self.folder(number)
        port = self.ports.setdefault(number, free_port())
        if not folder.exists():
            self._install(folder, instance)
        (folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        Path("/run/sshd").mkdir(exist_ok=True)
        start = (
            f"mount --bind {folder}/boot_id /proc/sys/kernel/random/boot_id && "
            f"exec /usr/sbin/sshd -D -e -p {port} -f {folder}/sshd.conf"
        )
        self.servers[number] = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", start],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=(folder / "sshd.log").open("ab"), start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while not listens(port):
            assert time.monotonic() < deadline, (folder / "sshd.log").read_text()
            time.sleep(0.02)
        return "127.0.0.1", port

    def _install(self, folder: Path, instance: dict[str, Any]) -> None:
        (folder / "bin").mkdir(parents=True)
        (folder / "home").mkdir(mode=0o700)
        key(folder / "host")
        name = self.gpu.get(instance["machine_id"], f"NVIDIA {instance['gpu_name']}")
        line = f"{name}, {instance['gpu_ram']}, 570.124.06\n"
        (folder / "gpus.csv").write_text(line * instance["num_gpus"])
        smi = folder / "bin" / "nvidia-smi"
        smi.write_text(SMI.format(root=folder))
        smi.chmod(0o755)
        if instance["machine_id"] in self.asleep:
            (folder / "asleep").touch()
        (folder / "authorized").touch(mode=0o600)
        (folder / "sshd.conf").write_text(
            f"ListenAddress 127.0.0.1\nHostKey {folder}/host\n"
            f"AuthorizedKeysFile {folder}/authorized\nPasswordAuthentication no\n"
            "PermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\n"
            f"SetEnv PATH={folder}/bin:{os.environ['PATH']} HOME={folder}/home\n"
        )

    def new_host_key(self, instance: int) -> None:
        """Another machine answers in the place of this one."""
        for name in ("host", "host.pub"):
            (self.folder(instance) / name).unlink()
        key(self.folder(instance) / "host")
        self.off(instance)

    def attach(self, instance: int, public_key: str) -> None:
        """Let a key in."""
        if self.folder(instance).exists():
            (self.folder(instance) / "authorized").write_text(public_key + "\n")

    @contextmanager
    def cut(self, instance: int) -> Iterator[None]:
        """Drop every packet to and from its sshd while the block runs."""
        rules = [[word, str(self.ports[instance])] for word in ("--dport", "--sport")]
        words = [["INPUT", "-i", "lo", "-p", "tcp", *rule, "-j", "DROP"] for rule in rules]
        for rule in words:
            subprocess.run(["iptables", "-w", "-I", *rule], check=True)
        try:
            yield
        finally:
            for rule in words:
                subprocess.run(["iptables", "-w", "-D", *rule], check=True)

    def off(self, instance: int) -> None:
        """Cut the power."""
        if server := self.servers.pop(instance, None):
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()

    def remove(self, instance: int) -> None:
        """Cut the power and wipe the disk."""
        self.off(instance)
        shutil.rmtree(self.folder(instance), ignore_errors=True)

    def close(self) -> None:
        """Remove everything."""
        for instance in list(self.servers):
            self.remove(instance)
