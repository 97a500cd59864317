"""Real servers on this machine: rclone's S3, HTTP, WebDAV and SFTP, sshd, an emulator of GCS."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from launcher.staging import engine


@dataclass
class Server:
    """A server that can be killed and started again on its port."""

    argv: list[str]
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + 30
        while not listens(self.port):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL to the server and its children, as a power cut."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(argv: Sequence[str], port: int, folder: Path, **environment: str) -> Iterator[Server]:
    """The server while the block runs; ``folder`` is its HOME and holds its log."""
    folder.mkdir(parents=True, exist_ok=True)
    merged = {**engine.environment(), "HOME": str(folder), "XDG_CACHE_HOME": "", **environment}
    server = Server(list(argv), port, folder / "log", environment=merged)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def serve(kind: str, root: Path, folder: Path, *options: str) -> Iterator[Server]:
    """``rclone serve KIND ROOT`` on a free port."""
    port = free_port()
    # Tests change the files behind it. With 0s rclone's cleaning of its cache starts itself
    # again without a pause, and can keep a request from its lock for minutes.
    words = ["serve", kind, "--addr", f"127.0.0.1:{port}", "--dir-cache-time", "5ms", *options]
    with running([engine.program(), *words, str(root)], port, folder) as server:
        yield server


@contextmanager
def gcs(root: Path, folder: Path) -> Iterator[Server]:
    """The emulator of PyPI with an empty bucket ``bkt``."""
    port = free_port()
    words = ["-d", str(root), "start", "--host=127.0.0.1", f"--port={port}", "--default-bucket=bkt"]
    with running([sys.executable, "-m", "gcp_storage_emulator", *words], port, folder) as server:
        yield server


@contextmanager
def sshd(folder: Path) -> Iterator[tuple[Server, str]]:
    """A real sshd; yields it and the words for RDTL_SSH that reach it."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("host", "me"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(argv, check=True)
    shutil.copy(folder / "me.pub", folder / "authorized")
    (folder / "sshd.conf").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPasswordAuthentication no\n"
        f"UsePAM no\nPidFile none\nSubsystem sftp internal-sftp\n"
    )
    host = (folder / "host.pub").read_text().split()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host[0]} {host[1]}\n")
    Path("/run/sshd").mkdir(exist_ok=True)
    words = f"ssh -F none -i {folder}/me -o UserKnownHostsFile={folder}/known"
    with running(
        ["/usr/sbin/sshd", "-D", "-e", "-f", f"{folder}/sshd.conf"], port, folder
    ) as server:
        yield server, words


ODD = {
    "plain.txt": b"plain\n",
    "empty": b"",
    "deep/er/file.bin": bytes(range(256)) * 400,
    "sp ace.txt": b"space",
    "é ü 日本.txt": b"unicode",
    "$(touch ran-dollar).txt": b"dollar",
    "`touch ran-tick`.txt": b"tick",
    "quo'te\".txt": b"quote",
    "-dash": b"dash",
    "semi;touch ran-semi;.txt": b"semi",
    "100% #1 [x] {y} *?.txt": b"globs",
}
"""Files whose names have been executed, split or taken for patterns by some tool."""


def write_tree(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
