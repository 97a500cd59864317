"""``~/.netrc`` with the passwords of several machines: what a web server is really sent."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from launcher.staging import fetch, transfer, uri
from launcher.staging.cache import Cache

HOSTS = ("127.0.0.1", "localhost", "api.wandb.ai")


@dataclass
class Web:
    """A server of one file; ``elsewhere`` is where it sends whoever asks for it."""

    port: int = 0
    elsewhere: str = ""
    asked: int = 0
    credentials: set[str] = field(default_factory=set)


@contextmanager
def web(elsewhere: str = "") -> Iterator[Web]:
    found = Web(elsewhere=elsewhere)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked += 1
            word = self.headers.get("Authorization", "").removeprefix("Basic ")
            found.credentials |= {base64.b64decode(word).decode()} - {""}
            self.send_response(302 if found.elsewhere else 200)
            if found.elsewhere:
                self.send_header("Location", found.elsewhere + self.path)
            self.send_header("Content-Length", "0" if found.elsewhere else "4")
            self.end_headers()
            if self.command == "GET" and not found.elsewhere:
                self.wfile.write(b"data")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_port
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A netrc to which somebody has appended more than once."""
    entries = [f"machine {host} login me password secret-of-{host}\n" for host in HOSTS]
    (tmp_path / ".netrc").write_text("".join([*entries, *entries]))
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))


def bring(cache: Cache, host: str, server: Web) -> bytes:
    where = uri.parse(f"http://{host}:{server.port}/f")
    return fetch.bring(cache, transfer.Order(where)).path.read_bytes()


@pytest.mark.parametrize("host", HOSTS[:2])
def test_a_host_is_sent_its_own_entry_and_no_other(host: str, cache: Cache) -> None:
    with web() as server:
        assert bring(cache, host, server) == b"data"
    assert server.credentials == {f"me:secret-of-{host}"}


def test_whoever_a_server_sends_us_to_is_sent_nothing(cache: Cache) -> None:
    with web() as far, web(f"http://localhost:{far.port}") as near:
        assert bring(cache, "127.0.0.1", near) == b"data"
    assert near.credentials == {"me:secret-of-127.0.0.1"}
    assert far.asked and far.credentials == set()
