"""A provider's answers of every kind, from a real server: which error, and never the key."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launcher.core.errors import RdtlError, UsageError
from launcher.providers import vast
from launcher.providers.http import Api

KEY = "canary-provider-key-41d2"
Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def answering(*answers: Answer) -> Iterator[tuple[str, list[str | None]]]:
    """A server that gives these answers in order (the last for ever), and the keys that it saw."""
    seen: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answers[min(len(seen), len(answers) - 1)]
            seen.append(self.headers.get("Authorization"))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


def api(url: str) -> Api:
    return Api(url, KEY, waits=(0.0, 0.0), timeout_s=5)


@pytest.mark.parametrize(
    ("answer", "once", "code", "tries"),
    [
        ((404, {}, b"no such box"), False, "RDTL-B062", 1),
        ((410, {}, b""), True, "RDTL-B062", 1),
        ((401, {}, KEY.encode()), False, "RDTL-B061", 1),
        ((403, {}, b""), True, "RDTL-B061", 1),
        ((500, {}, b"oops"), False, "RDTL-B068", 1),
        ((503, {"Retry-After": "soon"}, b"later"), False, "RDTL-B060", 3),
        ((503, {}, b"later"), True, "RDTL-B065", 1),
        ((200, {}, b"<html>" + KEY.encode()), False, "RDTL-B068", 1),
        ((200, {}, b"<html>" + KEY.encode()), True, "RDTL-B065", 1),
        ((200, {"Content-Length": "99"}, b"{"), False, "RDTL-B060", 3),
        ((200, {"Content-Length": "99"}, b"{"), True, "RDTL-B065", 1),
        ((429, {"Content-Length": "99"}, b"x"), False, "RDTL-B060", 3),
    ],
)
def test_what_an_answer_means(answer: Answer, once: bool, code: str, tries: int) -> None:
    """What may have been carried out (``once``) is not repeated; a key in an answer is hidden."""
    with answering(answer) as (url, seen):
        with pytest.raises(RdtlError) as caught:
            api(url).call("GET", "/x", once=once)
        assert caught.value.problem.code == code
        assert KEY not in f"{caught.value} {caught.value.to_dict()} {api(url)!r}"
        assert seen == [f"Bearer {KEY}"] * tries


def test_what_passes_is_waited_for() -> None:
    with answering((429, {"Retry-After": "0"}, b""), (200, {}, b'{"a": 1}')) as (url, seen):
        assert api(url).call("GET", "/x", query={"q": "a b"}) == {"a": 1}
    assert len(seen) == 2


def test_no_redirect_takes_the_key_along() -> None:
    with (
        answering((200, {}, json.dumps({}).encode())) as (elsewhere, stolen),
        answering((302, {"Location": f"{elsewhere}/x"}, b"")) as (url, _),
    ):
        with pytest.raises(RdtlError, match="RDTL-B068"):
            api(url).call("GET", "/x")
        assert stolen == []


def test_the_key_does_not_travel_in_clear() -> None:
    with pytest.raises(UsageError, match="RDTL-B061") as caught:
        Api("http://provider.example", KEY)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("between", ["\n", "\r\n", " ", "\t", "\x00", "\x7f", "\u00a0", "\u2013"])
def test_a_key_that_is_none_is_refused_and_not_shown(between: str) -> None:
    """http.client would quote such a header in its error, where nothing finds the key again."""
    with answering((200, {}, b"{}")) as (url, seen):
        with pytest.raises(UsageError, match="RDTL-B061") as caught:
            Api(url, f"{KEY}{between}something").call("GET", "/x")
        assert KEY not in f"{caught.value} {caught.value.to_dict()}" and seen == []


def test_the_end_of_a_key_file_is_no_part_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / ".vast_api_key").write_text(f"{KEY}\n")
    with answering((200, {}, b'{"instances": []}')) as (url, seen):
        monkeypatch.setenv("VAST_URL", url)
        monkeypatch.setenv("VAST_API_KEY", "")
        assert vast.connect().boxes() == []
    assert seen == [f"Bearer {KEY}"]


def test_nobody_there() -> None:
    """A refused connection certainly did nothing: even what may happen only once is tried again."""
    with answering((200, {}, b"{}")) as (url, _):
        pass
    for once in (False, True):
        with pytest.raises(RdtlError, match="RDTL-B060"):
            api(url).call("GET", "/x", once=once)
