"""Copies by rsync: what broke is said as it was, and a run that goes on can be copied.

The real rsync at both ends; in ssh's place stands a program that starts the other end here.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from launcher.core.errors import RemoteError
from launcher.ssh import Connection

LOCALLY = 'while test "$1" != host; do shift; done; shift; exec sh -c "$*"'
"""A shell's line that runs here what ssh would run there: the words after the host's."""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here" / "records").mkdir(parents=True)
    (tmp_path / "here" / "records" / "a").write_bytes(b"a" * 100_000)
    return tmp_path / "here"


def connect(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Connection:
    """Everything to ``host`` goes through a shell program with ``body``; the words are in $@."""
    program = folder / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(folder))
    return Connection("host")


def test_files_go_and_come(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = connect(tmp_path, monkeypatch, LOCALLY)
    connection.upload(here, ["records/a"], str(tmp_path / "there"))
    connection.download(str(tmp_path / "there"), ["records"], tmp_path / "back")
    assert (tmp_path / "back/records/a").read_bytes() == b"a" * 100_000


def test_no_rsync_over_there_is_no_lost_connection(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect(tmp_path, monkeypatch, f"PATH={tmp_path}/none; {LOCALLY}")
    (tmp_path / "none").mkdir()
    (tmp_path / "none/sh").symlink_to("/bin/sh")
    for copies in (
        lambda: connection.upload(here, ["records/a"], str(tmp_path / "there")),
        lambda: connection.download(str(here), ["records"], tmp_path / "back"),
    ):
        with pytest.raises(RemoteError, match="RDTL-S038") as caught:
            copies()
        assert "rsync: not found" in caught.value.problem.where


def test_a_full_disk_over_there_is_no_lost_connection(
    here: Path, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect(tmp_path, monkeypatch, LOCALLY)
    (here / "big").write_bytes(os.urandom(64_000_000))
    with pytest.raises(RemoteError, match="RDTL-S038") as caught:
        connection.upload(here, ["big"], str(small_disk))
    assert "No space left on device" in caught.value.problem.where


@pytest.mark.parametrize(
    "body",
    [
        "echo 'ssh: connect to host host port 22: Connection refused' >&2; exit 255",
        "echo 'ssh: connect to host host port 22: Connection refused' >&2; exit 12",
        f"(timeout -s KILL 1 sh -c '{LOCALLY}' sh \"$@\" | head -c 20000)\n"
        "echo 'client_loop: send disconnect: Broken pipe' >&2; exit 255",
        f"(timeout -s KILL 1 sh -c '{LOCALLY}' sh \"$@\" | head -c 20000)\n"
        "echo 'Connection to host closed by remote host.' >&2; exit 12",
    ],
    ids=["refused", "refused, as the protocol's end", "cut", "cut, as the protocol's end"],
)
def test_a_lost_connection_is_said(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    connection = connect(tmp_path, monkeypatch, body)
    with pytest.raises(RemoteError, match="RDTL-S037"):
        connection.download(str(here), ["records"], tmp_path / "back")


VANISHES = """
import os, subprocess, sys
command = " ".join(sys.argv[sys.argv.index("host") + 1 :])
end = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE)
os.set_blocking(1, True)
sent, gone = 0, sys.argv[1]
while data := os.read(end.stdout.fileno(), 65536):
    sent += len(data)
    if sent > 1_000_000 and os.path.exists(gone):
        os.rename(gone, gone + "-merged")
        os.remove(os.path.dirname(gone) + "/0")
    os.write(1, data)
sys.exit(end.wait())
"""
"""The other end, where a file that was copied goes, and one that is listed gets another name."""


def test_a_file_that_goes_meanwhile_is_copied_by_its_new_name(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As records that are merged, or a policy that is replaced, while the run goes on."""
    (here / "records/a").write_bytes(os.urandom(20_000_000))
    for name in "0b":
        (here / "records" / name).write_text(name)
    (tmp_path / "ends.py").write_text(VANISHES)
    body = f'exec python3 {tmp_path}/ends.py {here}/records/b "$@"'
    connection = connect(tmp_path, monkeypatch, body)
    connection.download(str(here), ["records"], tmp_path / "back")
    found = {path.name for path in (tmp_path / "back/records").iterdir()}
    assert found == {"a", "b-merged"}
