"""Stores that are silent, overloaded, of another time, not who they are: a code and an end."""

from __future__ import annotations

import http.server
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.core.errors import RdtlError
from launcher.staging import engine, fetch, send, transfer, uri
from launcher.staging.cache import Cache
from launcher.staging.stores import gcs, ssh, store_for
from tests.later import slow
from tests.staging import servers
from tests.staging.conftest import S3, SECRET, order, tree
from tests.staging.faults import Answer

SKEWED = b"""<?xml version="1.0" encoding="UTF-8"?><Error><Code>RequestTimeTooSkewed</Code>
<Message>The difference between the request time and the current time is too large.</Message>
<RequestTime>20200101T000000Z</RequestTime><MaxAllowedSkewMilliseconds>900000
</MaxAllowedSkewMilliseconds></Error>"""


SFTP = Path("/usr/lib/openssh/sftp-server")


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield listening.getsockname()[1]


def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second for an answer instead of half a minute."""
    monkeypatch.setattr(engine, "ASKING", (*engine.ASKING, "--timeout=1s"))
    monkeypatch.setattr(gcs, "WAIT_S", 0.2)


@pytest.mark.parametrize(
    "place", [*slow("rclone:t:bkt/x", "rclone:d:x"), "gs://bkt/x", "http://HOST/x"]
)
def test_a_silent_server_is_given_up(
    place: str, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty(monkeypatch)
    url = f"http://127.0.0.1:{silent}"
    for name, value in {
        "RCLONE_CONFIG_T_TYPE": "s3",
        "RCLONE_CONFIG_T_PROVIDER": "Other",
        "RCLONE_CONFIG_T_ENDPOINT": url,
        "RCLONE_CONFIG_D_TYPE": "webdav",
        "RCLONE_CONFIG_D_URL": url,
        "STORAGE_EMULATOR_HOST": url,
    }.items():
        monkeypatch.setenv(name, value)
    asked = uri.parse(place.replace("HOST", f"127.0.0.1:{silent}"))
    began = time.monotonic()
    with pytest.raises(RdtlError, match="RDTL-G011"):
        transfer.patiently_listed(transfer.Order(asked))
    if asked.scheme != "gs":  # gcsfs waits longer from try to try
        assert time.monotonic() - began < 15


@pytest.mark.slow
def test_an_answer_that_never_ends_is_given_up(
    silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever rclone's own bounds are."""
    monkeypatch.setattr(engine, "ANSWER_S", 1.0)
    monkeypatch.setenv("RCLONE_CONFIG_D_TYPE", "webdav")
    monkeypatch.setenv("RCLONE_CONFIG_D_URL", f"http://127.0.0.1:{silent}")
    began = time.monotonic()
    with pytest.raises(RdtlError, match="RDTL-G011") as caught:
        store_for("rclone").list(uri.parse("rclone:d:x"))
    assert "has not ended in 1 s" in caught.value.problem.where
    assert time.monotonic() - began < 15


@pytest.mark.slow
def test_a_machine_that_takes_a_login_and_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First its shell alone, so that files are listed and never hashed; then sftp, too."""
    if not SFTP.is_file():
        pytest.skip(f"needs {SFTP}")
    servers.write_tree(tmp_path / "there", {"a": b"a"})
    monkeypatch.setattr(engine, "ANSWER_S", 10.0)
    monkeypatch.setattr(ssh, "TRUE_S", 2.0)
    with servers.sshd(tmp_path / "server") as (server, words):
        key = (tmp_path / "server" / "authorized").read_text()
        sftp = f"case $SSH_ORIGINAL_COMMAND in *sftp*) exec {SFTP};; esac"
        monkeypatch.setenv("RDTL_SSH", words)
        place = uri.parse(f"ssh://127.0.0.1:{server.port}{tmp_path}/there")
        for does, word in ((f"{sftp}; exec sleep 60", "sha256sum"), ("exec sleep 60", "'true'")):
            (tmp_path / "server" / "authorized").write_text(f'command="{does}" {key}')
            began = time.monotonic()
            with pytest.raises(RdtlError, match="RDTL-G011") as caught:
                ssh.store().list(place)
            assert word in caught.value.problem.where
            assert time.monotonic() - began < 30


@pytest.mark.slow
def test_a_transfer_in_which_nothing_moves_is_ended_and_goes_on(
    s3: S3, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "SILENCE_S", 2.0)
    s3.put(**{"x/a": b"a" * 5000, "x/b": b"b"})
    asleep = threading.Event()
    s3.proxy.fault = lambda path, number, body: (
        asleep.wait(120) and None if path.endswith("/a") and number == 0 else None
    )
    began = time.monotonic()
    staged = fetch.bring(cache, order("x"))
    asleep.set()
    assert tree(staged.path) == {"a": b"a" * 5000, "b": b"b"}
    assert s3.fetched() == {"x/a": 2, "x/b": 1}
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("status", [429, *slow(500, 503)])
def test_a_listing_that_is_refused_for_a_while_is_asked_for_again(
    s3: S3, cache: Cache, status: int
) -> None:
    s3.put(**{"x/a": b"a"})
    times: list[str] = []

    def refuses(method: str, address: str, number: int) -> Answer | None:
        if "list-type" in address or "delimiter" in address:
            times.append(address)
            return Answer(status, b"later") if len(times) <= 4 else None
        return None

    s3.proxy.refuses = refuses
    assert tree(fetch.bring(cache, order("x")).path) == {"a": b"a"}
    assert len(times) > 4


def test_a_clock_that_is_wrong_here_is_named(s3: S3, cache: Cache) -> None:
    """What S3 says when a request was signed at another time."""
    s3.proxy.refuses = lambda method, address, number: Answer(403, SKEWED)
    with pytest.raises(RdtlError, match="RDTL-G028") as caught:
        fetch.bring(cache, order("x"))
    assert "clock" in caught.value.problem.fix
    assert SECRET not in str(caught.value)


def test_a_server_whose_certificate_nobody_signed_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    argv += [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        str(key),
    ]
    subprocess.run([*argv, "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://localhost:{server.server_port}")
    try:
        for place in (f"https://localhost:{server.server_port}/x", "s3://bkt/x"):
            said: list[str] = []
            with pytest.raises(RdtlError, match="RDTL-G027") as caught:
                transfer.patiently_listed(transfer.Order(uri.parse(place), say=said.append))
            assert "SSL_CERT_FILE" in caught.value.problem.fix
            assert said == [], "it will not become another one by asking again"
    finally:
        server.shutdown()
        server.server_close()


def test_links_that_lead_in_circles_are_refused_also_over_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.write_tree(tmp_path / "there", {"deep/a": b"a"})
    (tmp_path / "there" / "deep" / "up").symlink_to("..")
    monkeypatch.setenv("RCLONE_CONFIG_DISK_TYPE", "alias")
    monkeypatch.setenv("RCLONE_CONFIG_DISK_REMOTE", str(tmp_path))
    with servers.sshd(tmp_path / "server") as (server, words):
        monkeypatch.setenv("RDTL_SSH", words)
        for place in (f"ssh://127.0.0.1:{server.port}{tmp_path}/there", "rclone:disk:there"):
            asked = uri.parse(place)
            with pytest.raises(RdtlError, match="RDTL-G023"):
                store_for(asked.scheme).list(asked)


def test_links_of_a_remote_that_is_a_disk_are_not_left_out(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.write_tree(tmp_path / "there", {"real/a": b"a"})
    (tmp_path / "there" / "link").symlink_to("real")
    monkeypatch.setenv("RCLONE_CONFIG_DISK_TYPE", "alias")
    monkeypatch.setenv("RCLONE_CONFIG_DISK_REMOTE", str(tmp_path))
    place = transfer.Order(uri.parse("rclone:disk:there"))
    assert tree(fetch.bring(cache, place).path) == {"real/a": b"a", "link/a": b"a"}
    (tmp_path / "there" / "nowhere").symlink_to("nothing")
    with pytest.raises(RdtlError, match="RDTL-G023"):
        fetch.bring(cache, place)


@pytest.mark.parametrize("fault", [*slow("429", "500"), "cut", "altered"])
def test_an_upload_that_breaks_now_and_then_is_whole_in_the_end(
    s3: S3, tmp_path: Path, fault: str
) -> None:
    files = {"a": os.urandom(50_000), "b/c": os.urandom(70_000)}
    servers.write_tree(tmp_path / "here", files)
    hit: set[str] = set()

    def once(path: str) -> bool:
        first = path not in hit
        hit.add(path)
        return first and not path.endswith("rdtl-manifest.json")

    if fault == "altered":
        s3.proxy.spoils = lambda path, number, body: b"!" + body[1:] if once(path) else body
    else:
        answer = Answer(0 if fault == "cut" else int(fault), b"later")
        s3.proxy.refuses = lambda method, address, number: (
            answer if method == "PUT" and once(address) else None
        )
    send.send(send.Parcel(tmp_path / "here", uri.parse("rclone:t:bkt/out"), delete=True))
    found = tree(s3.root / "bkt" / "out")
    assert found.pop("rdtl-manifest.json") and found == files
    assert len(hit) > 1
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.slow
def test_an_upload_that_is_always_altered_is_never_whole_and_deletes_nothing(
    s3: S3, tmp_path: Path
) -> None:
    files = {"a": b"a" * 50_000, "b": b"b" * 10}
    servers.write_tree(tmp_path / "here", files)
    s3.proxy.spoils = lambda path, number, body: b"!" + body[1:] if path.endswith("/a") else body
    with pytest.raises(RdtlError, match=r"RDTL-G0(03|24)"):
        send.send(send.Parcel(tmp_path / "here", uri.parse("rclone:t:bkt/out"), delete=True))
    assert tree(tmp_path / "here") == files
    assert "rdtl-manifest.json" not in tree(s3.root / "bkt")


def test_an_upload_to_a_disk_that_is_full(small_disk: Path, tmp_path: Path) -> None:
    files = {"a": os.urandom(1_500_000), "b": os.urandom(1_500_000)}
    servers.write_tree(tmp_path / "here", files)
    parcel = send.Parcel(tmp_path / "here", uri.parse(f"file://{small_disk}/out"), delete=True)
    with pytest.raises(RdtlError, match="RDTL-G009"):
        send.send(parcel)
    assert tree(tmp_path / "here") == files
    assert not (small_disk / "out" / "rdtl-manifest.json").exists()


def test_a_place_that_cannot_be_written_is_said_before_anything_moves(
    s3: S3, small_disk: Path, tmp_path: Path
) -> None:
    s3.put(**{"x/a": b"a"})
    servers.write_tree(tmp_path / "here", {"a": b"a"})
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RdtlError, match=r"RDTL-G0(05|18)"):
        fetch.bring(Cache(small_disk / "cache"), order("x"))
    assert s3.fetched() == {}
    with pytest.raises(RdtlError, match=r"RDTL-G0(05|18)"):
        send.send(
            send.Parcel(tmp_path / "here", uri.parse(f"file://{small_disk}/out"), delete=True)
        )
    assert tree(tmp_path / "here") == {"a": b"a"}
