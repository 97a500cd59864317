"""The real `openpi-client`, in an environment of its own: it wants NumPy 1."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading
import time
import venv
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_async

from launcher import diagnose
from rdt.policy.rdt import RdtPolicy
from rdt.policy.remote import open_policy
from rdt.serve import codec, openpi, server
from rdt.spec.contract import LIBERO_VELOCITY
from tests.rdt import small_policy
from tests.serve import openpi_client_side as side
from tests.serve import servers

pytestmark = [pytest.mark.slow, pytest.mark.train]
PACKAGES = ("openpi-client==0.1.2", "typing_extensions")  # which it needs and does not declare
CLIENT = "websocket_client_policy"
LONG_S = 45
"""Longer than the 20 s + 20 s after which websockets gives a silent server up."""


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter of a cached environment with openpi-client."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "rdtl" / "tests" / PACKAGES[0]
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        install = [folder / "bin/python", "-m", "pip", "install", "-q", *PACKAGES]
        subprocess.run(install, check=True, timeout=300)
        (folder / "complete").touch()
    return folder / "bin/python"


@pytest.mark.parametrize("left_out", ["typing_extensions", "nothing"])
def test_what_it_needs_and_does_not_declare(python: Path, tmp_path: Path, left_out: str) -> None:
    """The real package beside all its declared dependencies, and only those."""
    (installed,) = python.parent.parent.glob("lib/python*/site-packages")
    for place in installed.iterdir():
        if not place.name.startswith(left_out):
            (tmp_path / place.name).symlink_to(place)
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import openpi_client.{CLIENT}"
    argv = [python, "-I", "-S", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    (tmp_path / "log").write_text(done.stderr)
    found = [one.code for one in diagnose.diagnose(tmp_path / "log")]
    complete = left_out == "nothing"
    assert (done.returncode == 0, found) == (complete, [] if complete else ["RDTL-E017"])


def client(python: Path, verb: str, uri: str, folder: Path, **streams: Any) -> Any:
    """The other side at work."""
    argv = [python, "-I", side.__file__, verb, uri, folder / f"{verb}.npz"]
    return subprocess.Popen(argv, text=True, **streams)


def result(running: Any, folder: Path, verb: str) -> Any:
    """What it found out."""
    assert running.wait(LONG_S + 60) == 0
    return np.load(folder / f"{verb}.npz")


def policy() -> RdtPolicy:
    """One that needs no joints, and two moments."""
    return small_policy.policy(contract=LIBERO_VELOCITY, cameras=2)


def test_it_gets_our_answers(python: Path, tmp_path: Path) -> None:
    with servers.ours(policy()) as uri:
        found = result(client(python, "talk", uri, tmp_path), tmp_path, "talk")
    assert "rdtl/1" in str(found["metadata"])
    assert found["actions"].shape == (small_policy.HORIZON, 7) and found["infer_ms"] > 0
    assert "RDTL-E056" in str(found["refused"])
    assert found["after"].shape == found["actions"].shape
    asked = _session_of_the_broker()
    expected = np.concatenate([server.chunks(policy(), [one])[0][:5] for one in asked])
    assert np.array_equal(found["broker"], expected)
    for number, shape in enumerate(side.SHAPES):
        ours = openpi.sized(side.picture(number, shape))
        assert np.array_equal(ours, found[f"sized{number}"]), shape


def _session_of_the_broker() -> list[Any]:
    """What the server understands of the two queries of its second connection."""
    session, asked = openpi.Session("connection-1", eats_joints=False), []
    for seed in (1, 2):
        asked.append(session.read(side.observation(seed)))
        session.answered(asked[-1])
    return asked


class Slow(RdtPolicy):
    """A policy that thinks for long."""

    def chunks(self, requests: Any) -> Any:
        if requests[0].episode != "warm-up":
            time.sleep(LONG_S)
        return super().chunks(requests)


@pytest.fixture
def blocking() -> Iterator[str]:
    """A server that computes in its event loop, as openpi's does: no ping is answered."""

    async def talk(connection: ServerConnection) -> None:
        await connection.send(codec.pack({}))
        await connection.recv()
        time.sleep(LONG_S)
        await connection.send(codec.pack({"actions": np.ones((10, 7), np.float32)}))
        await connection.wait_closed()

    loop, stop, started = asyncio.new_event_loop(), asyncio.Event(), Future[str]()

    async def main() -> None:
        async with serve_async(talk, "127.0.0.1", 0, compression=None) as listening:
            started.set_result(f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[main()])
    thread.start()
    yield started.result()
    loop.call_soon_threadsafe(stop.set)
    thread.join()


def test_answers_that_take_long(python: Path, tmp_path: Path, blocking: str) -> None:
    """Its keep-alive does not cut our server off, and we do not give a blocking server up.

    The third pair shows that the time is long enough: its client loses a blocking server.
    """
    slow = policy()
    slow.__class__ = Slow
    remote = open_policy(blocking, patience_s=10)
    with servers.ours(slow) as uri, ThreadPoolExecutor(1) as pool:
        patient = pool.submit(remote.chunk, servers.observation(1), 0)
        found = result(client(python, "wait", uri, tmp_path), tmp_path, "wait")
        assert np.array_equal(patient.result(LONG_S), np.ones((10, 7)))
    assert found["seconds"] >= LONG_S and found["actions"].shape == (small_policy.HORIZON, 7)
    remote.close()
    lost = client(python, "wait", blocking, tmp_path, stderr=subprocess.PIPE)
    _, errors = lost.communicate(timeout=LONG_S + 60)
    assert lost.returncode == 1 and "keepalive ping timeout" in errors


def test_a_server_that_is_killed_and_comes_back(python: Path, tmp_path: Path) -> None:
    folder = small_policy.trained_folder(tmp_path)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with servers.program(folder) as (uri, process):
        asking = client(python, "again", uri, tmp_path, **pipes)
        assert asking.stdout.readline() == "answered\n"
        process.kill()
        process.wait()
        with servers.program(folder, port=int(uri.rpartition(":")[2])):
            asking.stdin.write("go\n")
            asking.stdin.flush()
            found = result(asking, tmp_path, "again")
    assert str(found["broke"]).startswith("ConnectionClosed")
    assert np.array_equal(found["before"], found["after"])
