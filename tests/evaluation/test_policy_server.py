"""The server that an evaluation task starts: warm, patient with its clients, ended in time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.policy_server import DEATHS, PolicyServer
from launcher.core import files
from launcher.core.errors import RdtlError
from rdt.policy import loading
from rdt.policy.remote import open_policy
from rdt.serve.agreement import Agreement
from rdt.spec.record import EpisodeKey
from tests.rdt import small_policy
from tests.serve import servers

KEY = EpisodeKey("rdt", "libero_object", 0, 0, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_policy.trained_folder(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def start(folder: Path, tmp_path: Path) -> Iterator[Callable[[], PolicyServer]]:
    """Starts a server in this working tree with a fixed batch of two rows."""
    started: list[PolicyServer] = []

    def one(**changes: Any) -> PolicyServer:
        options = {
            "checkpoint": str(folder),
            "token_file": None,
            "token_env": None,
            "batching": "fixed",
            "rows": 2,
            "wait_ms": 5.0,
            "seed": 0,
            "device": "cpu",
            "dtype": "float32",
            "threads": 1,
            "compiled": False,
            "vision": None,
            "language": None,
            "instruction": servers.INSTRUCTION,
            **changes,
        }
        started.append(PolicyServer(options, tmp_path / "logs" / "server.log"))
        return started[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(servers.ROOT))
        yield one
    for server in started:
        server.end()


def listening(server: PolicyServer) -> str:
    deadline = time.monotonic() + 60
    while (uri := server.uri()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return uri


def kill(server: PolicyServer) -> None:
    os.kill(server.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while server.alive():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_its_death_does_not_show_in_answers(
    start: Callable[[], PolicyServer], folder: Path, tmp_path: Path
) -> None:
    server = start()
    remote = open_policy(listening(server))
    os.kill(server.pid, signal.SIGTERM)  # as Slurm does, while workers finish their episodes
    os.kill(server.pid, signal.SIGUSR2)
    local = loading.load(folder, 0, loading.Settings(rows=2))
    asked = servers.observation(3)
    for policy in (remote, local):
        policy.begin(None, KEY)  # type: ignore[arg-type]
    before = remote.chunk(asked, 1)
    kill(server)
    server.keep_alive()
    after = remote.chunk(asked, 1)
    assert np.array_equal(before, local.chunk(asked, 1))
    assert np.array_equal(after, before)
    remote.close()
    server.end()
    log = (tmp_path / "logs" / "server.log").read_text()
    assert log.count("listening on") == 2
    assert "1 requests in 1 batches" in log


def test_one_that_dies_again_and_again_is_given_up(start: Callable[[], PolicyServer]) -> None:
    server = start()
    for _ in range(DEATHS - 1):
        kill(server)
        server.keep_alive()
    kill(server)
    with pytest.raises(RdtlError, match=r"ended with code -9") as caught:
        server.keep_alive()
    assert caught.value.problem.code == "RDTL-E067"


def test_its_own_error_is_said_at_once(start: Callable[..., PolicyServer]) -> None:
    with pytest.raises(RdtlError) as caught:
        listening(start(device="cuda:77"))
    assert caught.value.problem.code == "RDTL-U030"


@pytest.mark.slow
def test_free_batches_say_how_often_they_agree(
    start: Callable[..., PolicyServer], tmp_path: Path
) -> None:
    file = tmp_path / "agreement" / "told.json"
    server = start(batching="free", wait_ms=5000.0, agreement=str(file))
    uri = listening(server)
    assert files.read_json(file)["looked"] == 0
    clients = [open_policy(uri), open_policy(uri)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda n: clients[n].chunk(servers.observation(3 + n), 1), range(2)))
    for client in clients:
        client.close()
    server.end()
    told = files.read_json(file)
    assert told["looked"] == 1
    assert told["largest"] < 1e-4
    assert f"{told['equal']} of 1 answers" in (tmp_path / "logs" / "server.log").read_text()


def test_agreement_counts_what_differs(tmp_path: Path) -> None:
    """A policy whose second row depends on whether there is a first one."""

    def compute(asked: Any) -> Any:
        rows = np.zeros((len(asked), 2, 7), np.float32)
        rows[1:] += np.float32(0.25)
        return rows

    agreement = Agreement(compute, tmp_path / "told.json", every=1)
    for count in (1, 2, 2, 1, 2):
        assert np.array_equal(agreement([None] * count), compute([None] * count))  # type: ignore[list-item]
    assert (agreement.looked, agreement.equal, agreement.largest) == (3, 2, 0.25)
    assert "2 of 3 answers (66.7 %)" in agreement.text()
    assert '"looked": 3' in (tmp_path / "told.json").read_text()
    again = Agreement(compute, tmp_path / "told.json", every=1)  # of a server that had died
    again([None] * 2)  # type: ignore[list-item]
    assert files.read_json(tmp_path / "told.json") == {"looked": 4, "equal": 2, "largest": 0.25}
