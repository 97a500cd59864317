"""Whether anybody answers is told within seconds, whatever the network does."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from launcher.core.checks import NothingToLookAtError
from launcher.doctor import network
from launcher.doctor.network import Needed, connected
from launcher.doctor.subject import Subject
from tests.doctor.conftest import subject


def with_server(folder: Path, port: int) -> Subject:
    server = {"policies": ["server"], "server": f"ws://127.0.0.1:{port}"}
    return subject(folder, evaluate=server)


def test_a_server_that_answers_and_one_that_is_gone(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (answers,) = network.network(with_server(tmp_path, port))
    assert (answers.code, answers.severity) == ("RDTL-E051", "ok")
    (gone,) = network.network(with_server(tmp_path, port))
    assert (gone.code, gone.severity) == ("RDTL-E051", "error")
    assert "refused" in gone.where


@pytest.mark.slow
def test_a_place_that_swallows_everything_costs_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue of connections: packets go in and nothing comes back, as behind a firewall."""
    monkeypatch.setattr(network, "PATIENCE_S", 1.0)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        begun = time.monotonic()
        needed = [Needed(f"key{n}", f"https://127.0.0.1:{address[1]}", "RDTL-G011")
                  for n in range(3)]  # fmt: skip
        found = connected(needed)
        assert time.monotonic() - begun < 4
        for one in waiting:
            one.close()
    assert [one.severity for one in found] == ["error"] * 3
    assert "timed out" in found[0].where or "no answer in" in found[0].where


def test_what_training_does_without_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    (found,) = network.network(subject(tmp_path, train={"wandb": "online"}))
    assert (found.code, found.severity) == ("RDTL-W006", "warning")


@pytest.mark.parametrize(
    ("uri", "code"),
    [("rclone:nobody:set", "RDTL-G014"), ("file:///nowhere/at/all", "RDTL-G002"),
     ("s3://bucket/set", "RDTL-G011"), ("gs://bucket/set", "RDTL-G011"),
     ("hf://datasets/a/b", "RDTL-G011"), ("https://127.0.0.1:9/set", "RDTL-G011")],
)  # fmt: skip
def test_stores_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, code: str
) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "STORAGE_EMULATOR_HOST", "HF_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    what = subject(tmp_path, dataset={"sets": [{"path": uri}]}, train={})
    (found,) = network.network(what)
    assert (found.code, found.severity) == (code, "error")
    assert "dataset.sets.0.path" in found.where


def test_a_proxy_is_what_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "inside")
    assert Needed("key", "https://outside/x", "RDTL-G011").target() == ("proxy", 3128)
    assert Needed("key", "https://inside/x", "RDTL-G011").target() == ("inside", 443)


@pytest.mark.parametrize("name", ["https_proxy", "all_proxy"])
def test_a_proxy_may_have_no_scheme_and_be_for_all(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for other in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "proxy:3128")
    assert Needed("key", "https://outside/x", "RDTL-G011").target() == ("proxy", 3128)


def test_a_run_without_a_network_has_nothing_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(NothingToLookAtError):
        network.network(subject(tmp_path, train={}))
