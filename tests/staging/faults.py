"""A proxy before a real server that really breaks things: it cuts, stalls, refuses, alters."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

PASS: Fault = lambda path, number, body: None  # noqa: E731

Fault = Callable[[str, int, bytes], "Answer | None"]
"""(path of the object, how often it was asked for before, its body) → what to say instead."""


@dataclass
class Answer:
    """A broken answer to a GET of an object."""

    status: int = 200
    """0: no answer, the connection is cut."""
    body: bytes = b""
    length: int | None = None
    """What Content-Length promises; more than the body cuts the connection in the middle."""


@dataclass
class Proxy:
    """The proxy's port, what goes wrong now, and how often each object was really fetched."""

    port: int
    fault: Fault = PASS
    refuses: Callable[[str, str, int], Answer | None] = lambda method, address, number: None
    """(method, address, how often this was asked) → what is said instead of asking the server."""
    spoils: Callable[[str, int, bytes], bytes] = lambda path, number, body: body
    """What becomes of an object on its way to the server."""
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    gets: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def slow_from(self, objects: int, seconds: float) -> threading.Event:
        """Let each GET take longer once so many objects were asked for, and say when that is."""
        reached = threading.Event()

        def slow(path: str, number: int, body: bytes) -> None:
            if len(self.gets) >= objects:
                reached.set()
                time.sleep(seconds)

        self.fault = slow
        return reached


@contextmanager
def before(upstream: int) -> Iterator[Proxy]:
    """A proxy before the server on port ``upstream``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.proxy = proxy = Proxy(server.server_port)  # type: ignore[attr-defined]
    server.upstream = upstream  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    """Hands everything on but what the fault says about GETs of objects."""

    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length) if length else None
        with proxy.lock:
            number = proxy.asked[self.command, self.path]
            proxy.asked[self.command, self.path] += 1
        if refusal := proxy.refuses(self.command, self.path, number):
            self.refuse(refusal)
            return
        if self.command == "PUT" and sent:
            sent = proxy.spoils(unquote(urlsplit(self.path).path), number, sent)
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)  # type: ignore[attr-defined]
        try:
            upstream.request(self.command, self.path, body=sent, headers=dict(self.headers))
            answer = upstream.getresponse()
            body = answer.read()
        finally:
            upstream.close()
        broken = None
        parts = urlsplit(self.path)
        if self.command == "GET" and "list-type" not in parts.query and parts.path.count("/") > 1:
            path = unquote(parts.path)
            with proxy.lock:
                number = proxy.gets[path]
                proxy.gets[path] += 1
            broken = proxy.fault(path, number, body)
        self.reply(answer, body, broken)

    def refuse(self, answer: Answer) -> None:
        if answer.status == 0:
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body if self.command != "HEAD" else b"")

    def reply(self, answer: http.client.HTTPResponse, body: bytes, broken: Answer | None) -> None:
        status = broken.status if broken else answer.status
        sent = broken.body if broken else body
        self.send_response(status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        length = broken.length if broken and broken.length is not None else len(sent)
        if self.command == "HEAD":
            length = int(answer.getheader("Content-Length") or 0)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)
        if length != len(sent) and self.command != "HEAD":
            self.wfile.flush()
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""
