"""``rdtl stage login``: a token from elsewhere, tried, written for one user, shown nowhere."""

from __future__ import annotations

import base64
import json
import os
import pty
import select
import stat
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from launcher.core.errors import RdtlError, UsageError
from launcher.staging import login, remotes, uri
from launcher.staging.engine import Engine
from launcher.staging.stores import gcs
from tests.staging import servers

ROOT = Path(__file__).parents[2]
GCS = "google cloud storage"
CANARY = "canary-b7e1f2"


def token(**more: str) -> str:
    facts = {"access_token": f"{CANARY}-access", "token_type": "Bearer",
             "refresh_token": f"{CANARY}-refresh", "expiry": "2099-01-01T00:00:00Z"}  # fmt: skip
    return json.dumps({**facts, **more})


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    pytest.importorskip("gcp_storage_emulator")
    folder = tmp_path_factory.mktemp("gcs")
    servers.write_tree(folder / "libero", {"a.txt": b"a", "b/c.txt": b"c"})
    with servers.gcs(folder / "root", folder / "home") as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", server.url)
            place = uri.parse("gs://bkt/libero")
            files = ["a.txt", "b/c.txt"]
            gcs.store().upload(place, folder / "libero", files, Engine(transfers=1).move)
        yield server


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "conf" / "rclone.conf"
    monkeypatch.setenv("RCLONE_CONFIG", str(path))
    return path


def asked(server: servers.Server, path: str = "bkt/libero", *more: str) -> login.Login:
    return login.parse("gg1", GCS, [f"endpoint={server.url}/storage/v1/", *more], path)


def test_a_token_is_tried_and_written_for_its_owner_alone(
    bucket: servers.Server, place: Path
) -> None:
    place.parent.mkdir()
    place.write_text(
        "# mine\n[other]\ntype = s3\n\n[gg1]\ntype = drive\ntoken = old\n\n[last]\na = b\n"
    )
    place.chmod(0o644)
    block = f"Paste the following into your remote machine --->\n{token()}\n<---End paste\n"
    assert login.finish(asked(bucket), block) == ["a.txt", "b/"]
    text = place.read_text()
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert text.startswith("# mine\n[other]\ntype = s3\n") and "old" not in text
    found = remotes.sections(text)
    assert found["gg1"]["type"] == GCS and json.loads(found["gg1"]["token"]) == json.loads(token())
    assert found["other"] == {"type": "s3"} and found["last"] == {"a": "b"}
    assert [path.name for path in place.parent.iterdir()] == ["rclone.conf"]


@pytest.mark.slow
def test_a_remote_that_works_is_not_replaced_by_one_that_does_not(
    bucket: servers.Server, place: Path
) -> None:
    place.parent.mkdir()
    place.write_text("[gg1]\ntype = drive\ntoken = good\n")
    with pytest.raises(RdtlError, match="RDTL-G002"):
        login.finish(asked(bucket, "bkt/nothing"), token())
    nobody = f"token_url=http://127.0.0.1:{servers.free_port()}/"
    with pytest.raises(RdtlError, match="RDTL-G014") as failed:
        login.finish(asked(bucket, "bkt", nobody), token(expiry="2020-01-01T00:00:00Z"))
    assert CANARY not in str(failed.value)
    assert place.read_text() == "[gg1]\ntype = drive\ntoken = good\n"
    assert [path.name for path in place.parent.iterdir()] == ["rclone.conf"]


def test_a_token_that_is_renewed_while_it_is_tried_is_the_one_that_stays(
    bucket: servers.Server, place: Path
) -> None:
    class Renews(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
            assert f"refresh_token={CANARY}-refresh" in asked
            answer = {"access_token": "new", "refresh_token": "second", "token_type": "Bearer",
                      "expires_in": 3600}  # fmt: skip
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Renews)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        url = f"token_url=http://127.0.0.1:{server.server_port}/"
        login.finish(asked(bucket, "bkt", url), token(expiry="2020-01-01T00:00:00Z"))
    finally:
        server.shutdown()
    stays = json.loads(remotes.sections(place.read_text())["gg1"]["token"])
    assert (stays["access_token"], stays["refresh_token"]) == ("new", "second")


def test_forms_of_a_token() -> None:
    whole = {"token": token(), "root_folder_id": "X"}
    word = base64.b64encode(json.dumps(whole).encode()).decode().rstrip("=")
    assert login.token_of(f"--->\n{word}\n<---End paste")["root_folder_id"] == "X"
    assert json.loads(login.token_of(token())["token"]) == json.loads(token())
    for text in ("", "{}", "gibberish", f'{{"{CANARY}": 1}}', "[1]", "é" * 99, token()[:-5]):
        with pytest.raises(UsageError, match="RDTL-G044") as failed:
            login.token_of(text)
        assert CANARY not in str(failed.value)


@pytest.mark.parametrize(
    ("name", "setting", "code"),
    [
        ("-x", "scope=drive", "RDTL-G040"),
        ("a:b", "scope=drive", "RDTL-G040"),
        ("a]b", "scope=drive", "RDTL-G040"),
        ("", "scope=drive", "RDTL-G040"),
        ("gg1", f"client_secret={CANARY}", "RDTL-W003"),
        ("gg1", f"token={CANARY}", "RDTL-W003"),
        ("gg1", "scope=drive\n[evil]", "RDTL-U004"),
        ("gg1", "scope", "RDTL-U004"),
    ],
)
def test_refused(name: str, setting: str, code: str) -> None:
    with pytest.raises(UsageError, match=code) as failed:
        login.parse(name, "drive", [setting], "")
    assert CANARY not in str(failed.value)


def test_an_encrypted_configuration_is_left_alone(bucket: servers.Server, place: Path) -> None:
    place.parent.mkdir()
    text = "# Encrypted rclone configuration File\n\nRCLONE_ENCRYPT_V0:\nabc\n"
    place.write_text(text)
    with pytest.raises(RdtlError, match="RDTL-G041"):
        login.finish(asked(bucket), token())
    assert place.read_text() == text


def test_on_a_terminal_it_says_what_to_do_and_shows_no_token(
    bucket: servers.Server, place: Path, tmp_path: Path
) -> None:
    long = token(padding="x" * 6000)  # longer than a line that a terminal edits
    words = ["stage", "login", "gg1", "bkt/libero", "--type", GCS, "--set",
             f"endpoint={bucket.url}/storage/v1/"]  # fmt: skip
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-P", "-m", "launcher", *words]
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
                               cwd=tmp_path)  # fmt: skip
    os.close(theirs)
    seen = ""
    deadline = time.monotonic() + 60
    pasted = False
    while time.monotonic() < deadline:
        if not pasted and "It is not shown" in seen and "From a file" in seen:
            while termios.tcgetattr(ours)[3] & termios.ECHO:
                assert time.monotonic() < deadline, "it shows what is typed"
                time.sleep(0.05)
            os.write(ours, f"Paste ... --->\n{long}\n<---End paste\n".encode())
            pasted = True
        if select.select([ours], [], [], 0.2)[0]:
            try:
                seen += os.read(ours, 65536).decode(errors="replace")
            except OSError:
                break
        elif process.poll() is not None:
            break
    os.close(ours)
    assert process.wait(10) == 0, seen
    assert "rclone authorize 'google cloud storage'" in seen
    assert "gg1: works; a.txt, b/" in seen
    assert CANARY not in seen
    assert json.loads(remotes.sections(place.read_text())["gg1"]["token"])["padding"] == "x" * 6000
