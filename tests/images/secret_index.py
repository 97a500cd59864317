"""A package index on this machine that wants a password (or not), and the files that it serves."""

from __future__ import annotations

import base64
import ssl
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from launcher.images import definition

ROOT = Path(__file__).parent.parent.parent
PART = ROOT / "containers" / "steps" / "part.py"
PACKAGES = ("pip", "setuptools", "wheel", "packaging", "easydict")


@dataclass(frozen=True)
class Index:
    """Address and secret of a running index; ``config`` is a pip.conf that holds both."""

    config: Path
    user: str
    password: str
    host: str
    asked: list[str]
    """Paths that somebody asked for."""


def lock_text() -> str:
    """A lock of a few packages, cut out of a real one.

    It is new each time: with the layers of an earlier build no package would be installed, and
    nothing would be seen of how.
    """
    _, lock = definition.load("all-cpu")
    argv = [sys.executable, str(PART), str(lock.path), "--only", *PACKAGES]
    cut = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return f"# {uuid.uuid4()}\n{cut}"


def download(lock: str, folder: Path) -> Path:
    """The packages of a lock in the layout of an index: ``folder/simple/NAME/FILE``."""
    (folder / "lock.txt").write_text(lock)
    argv = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes"]
    argv += ["-r", str(folder / "lock.txt"), "-d", str(folder / "files")]
    subprocess.run(argv, check=True, timeout=120)
    for path in (folder / "files").iterdir():
        target = folder / "simple" / path.name.partition("-")[0].lower() / path.name
        target.parent.mkdir(parents=True)
        path.rename(target)
    return folder


class _Handler(SimpleHTTPRequestHandler):
    """Files of a directory for those who know the password."""

    wanted: str | None = None
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.wanted and self.headers.get("Authorization") != self.wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="index"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serve(folder: Path, certificate: Path | None = None, password: bool = True) -> Iterator[Index]:
    """Serve ``folder/simple``; with ``certificate`` (PEM, key and certificate) over TLS."""
    user, secret = f"user-{uuid.uuid4().hex[:8]}", f"canary-{uuid.uuid4().hex}"
    credentials = base64.b64encode(f"{user}:{secret}".encode()).decode()
    asked: list[str] = []
    wanted = f"Basic {credentials}" if password else None
    handler = type("Handler", (_Handler,), {"wanted": wanted, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    host = f"localhost:{server.server_address[1]}"
    scheme = "https" if certificate else "http"
    config = folder / "pip.conf"
    config.write_text(f"[global]\nindex-url = {scheme}://{user}:{secret}@{host}/simple\n")
    config.chmod(0o600)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Index(config, user, secret, host, asked)
    finally:
        server.shutdown()
        server.server_close()


def certificate(folder: Path) -> Path:
    """A certificate for localhost that nobody has signed, with its key."""
    path = folder / "certificate.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    argv += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*argv, "-keyout", str(path), "-out", str(folder / "public.pem")], check=True,
                   capture_output=True)  # fmt: skip
    path.write_text(path.read_text() + (folder / "public.pem").read_text())
    return path
