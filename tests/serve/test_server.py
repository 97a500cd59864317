"""Our server: who asks gets the answer of a policy that nobody shares."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from jobs.serve import Options, token
from launcher.cli.serve import require_packages
from launcher.core.errors import RdtlError, RefusedError, UsageError
from rdt.policy import loading
from rdt.policy.rdt import RdtPolicy, Request
from rdt.policy.remote import open_policy
from rdt.serve import codec, exact, openpi, server
from rdt.serve.connection import Connection, LostError
from rdt.serve.exact import Asked
from rdt.spec.contract import LIBERO_RAW_VELOCITY
from rdt.spec.record import EpisodeKey
from tests.cli.interrupting import descendants, interrupt
from tests.rdt import small_policy
from tests.serve import servers

pytestmark = pytest.mark.train


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums do not depend on how many threads other tests left."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def key(number: int) -> EpisodeKey:
    return EpisodeKey("rdt", "libero_object", 0, number, 0)


def alone(seeds: range, **settings: Any) -> list[np.ndarray]:
    """The answers of a policy in this process to the queries of an episode."""
    policy = small_policy.policy(**settings)
    requests = [
        Request(small_policy.observation(seed, first=query == 0), key(seeds[0]).text(), query)
        for query, seed in enumerate(seeds)
    ]
    return [policy.chunks([request]).actions[0] for request in requests]


def through(uri: str, seeds: range) -> list[np.ndarray]:
    """The same answers, through a server."""
    remote = open_policy(uri, patience_s=10)
    remote.begin(None, key(seeds[0]))  # type: ignore[arg-type]
    answers = [
        remote.chunk(small_policy.observation(seed, first=query == 0), query)
        for query, seed in enumerate(seeds)
    ]
    remote.close()
    return answers


def test_many_clients_get_bit_for_bit_what_each_would_get_alone() -> None:
    """Two moments, six pictures, joints; instructions of two lengths; batches of up to four."""
    episodes = [range(first, first + 4) for first in range(1, 25, 4)]
    policy = small_policy.policy(rows=4)
    with servers.ours(policy, wait_s=0.05) as uri, ThreadPoolExecutor(len(episodes)) as pool:
        found = list(pool.map(lambda seeds: through(uri, seeds), episodes))
    for seeds, answers in zip(episodes, found, strict=True):
        assert np.array_equal(answers, alone(seeds, rows=4))


def test_free_batches_are_the_same_numbers_up_to_rounding() -> None:
    with servers.ours(small_policy.policy(batching="free", rows=4)) as uri:
        assert np.allclose(through(uri, range(1, 5)), alone(range(1, 5)), atol=1e-4)


def test_what_a_client_is_told_first() -> None:
    policy = small_policy.policy(rows=2)
    with servers.ours(policy) as uri, connect(uri) as connection:
        told = codec.unpack(connection.recv())
    assert told["protocol"] == "rdtl/1" and told["action_horizon"] == small_policy.HORIZON
    assert told["camera_rotation"] == "180" and told["gripper"] == "-1 = open, +1 = close"
    assert told["data_contract"].startswith("libero-raw-velocity ")
    assert (told["sees_previous"], told["eats_joints"], told["rows"]) == (True, True, 2)


def ask(connection: Any, message: Any) -> Any:
    """One exchange in openpi's way."""
    connection.send(message if isinstance(message, str | bytes) else codec.pack(message))
    reply = connection.recv(20)
    return reply if isinstance(reply, str) else codec.unpack(reply)


def wire(seed: int) -> dict[str, Any]:
    """What an openpi client with joints sends."""
    seen = small_policy.observation(seed)
    return {**openpi.to_wire(seen), openpi.JOINTS: seen.joint_pos}


def test_an_openpi_client_gets_the_policys_chunks() -> None:
    policy, episode = small_policy.policy(), key(0).text()
    session, expected = openpi.Session("", eats_joints=True), []
    for seed in (1, 2):
        asked = session.read({**wire(seed), "episode": episode})
        session.answered(asked)
        expected.append(server.chunks(policy, [asked])[0])
    with servers.ours(small_policy.policy()) as uri, connect(uri) as connection:
        connection.recv()
        replies = [ask(connection, {**wire(seed), "episode": episode}) for seed in (1, 2)]
    assert np.array_equal([reply["actions"] for reply in replies], expected)
    assert not np.array_equal(*expected)
    assert replies[0]["actions"].shape == (small_policy.HORIZON, 7)
    assert "prev_total_ms" not in replies[0]["server_timing"]
    assert replies[1]["server_timing"]["prev_total_ms"] >= replies[0]["policy_timing"]["infer_ms"]


def test_an_error_is_a_text_and_the_next_question_is_answered() -> None:
    with servers.ours(small_policy.policy()) as uri, connect(uri) as connection:
        connection.recv()
        assert "RDTL-E056" in ask(connection, {"prompt": "go"})
        assert "RDTL-E056" in ask(connection, b"\xc1")
        assert "RDTL-E056" in ask(connection, "text")
        assert "RDTL-E056" in ask(connection, codec.pack([1]))
        bad = wire(1)
        bad[openpi.JOINTS][3] = np.nan
        assert "RDTL-E043" in ask(connection, bad)
        assert "actions" in ask(connection, wire(1))


def test_a_fault_in_the_policy_is_told_and_the_next_question_is_answered() -> None:
    policy: Any = small_policy.policy()
    whole, told = policy.chunks, []

    def chunks(requests: Any) -> Any:
        if not told and requests[0].episode != "warm-up":
            told.append(requests)
            raise FloatingPointError("cuBLAS")
        return whole(requests)

    policy.chunks = chunks
    with servers.ours(policy) as uri, connect(uri) as connection:
        connection.recv()
        said = ask(connection, wire(1))
        assert "RDTL-E059" in said and "FloatingPointError: cuBLAS" in said
        assert "actions" in ask(connection, wire(1))


def test_errors_of_the_policy_keep_their_codes_on_the_way() -> None:
    with servers.ours(small_policy.policy()) as uri:
        remote = open_policy(uri, patience_s=10)
        with pytest.raises(RdtlError, match="RDTL-E031") as caught:
            remote.chunk(small_policy.observation(1, first=True), 3)
        assert caught.value.exit_status == 3
        assert remote.chunk(small_policy.observation(1, first=True), 0).shape == (8, 7)
        remote.close()


class Busy(RdtPolicy):
    """A policy that computes until it is told to end."""

    computing: threading.Event
    go: threading.Event

    def chunks(self, requests: Any) -> Any:
        if requests[0].episode != "warm-up":
            self.computing.set()
            assert self.go.wait(20)
        return super().chunks(requests)


def busy() -> Busy:
    """A small one."""
    policy: Any = small_policy.policy()
    policy.__class__ = Busy
    policy.computing, policy.go = threading.Event(), threading.Event()
    return policy  # type: ignore[no-any-return]


def test_a_long_answer_keeps_nobody_out() -> None:
    """While the network computes, pings, probes and new clients are answered."""
    policy = busy()
    with servers.ours(policy) as uri, connect(uri) as first, ThreadPoolExecutor(1) as pool:
        first.recv()
        answer = pool.submit(ask, first, wire(1))
        assert policy.computing.wait(10)
        with urlopen(uri.replace("ws:", "http:") + "/healthz", timeout=5) as health:
            assert (health.status, health.read()) == (200, b"OK\n")
        assert first.ping().wait(5)
        with connect(uri) as second:
            assert codec.unpack(second.recv(5))["protocol"] == "rdtl/1"
        assert not answer.done()
        policy.go.set()
        assert "actions" in answer.result(10)


def test_a_server_that_ends_in_the_middle_of_an_answer() -> None:
    """It does not wait for ever, and its client learns that there will be no answer."""
    policy = busy()
    with ThreadPoolExecutor(1) as pool:
        with servers.ours(policy) as uri:
            connection = Connection(uri, None, 5, 20)
            connection.open()
            asked = exact.Asked(small_policy.observation(1), "episode", 1)
            answer = pool.submit(connection.ask, exact.to_wire(asked))
            assert policy.computing.wait(10)
            threading.Timer(0.5, policy.go.set).start()
        with pytest.raises(LostError):
            answer.result(10)


def test_no_entry_without_the_token() -> None:
    with servers.ours(small_policy.policy(), host="0.0.0.0", token="secret") as uri:
        uri = uri.replace("0.0.0.0", "127.0.0.1")
        for token in (None, "secre", "secret2"):
            with pytest.raises(UsageError, match="RDTL-E057") as caught:
                open_policy(uri, token, patience_s=10)
            assert "secre" not in str(caught.value)
        assert len(through_token(uri, "secret")) == small_policy.HORIZON
        with urlopen(uri.replace("ws:", "http:") + "/healthz", timeout=5) as health:
            assert health.status == 200


def through_token(uri: str, token: str) -> np.ndarray:
    remote = open_policy(uri, token, patience_s=10)
    answer = remote.chunk(small_policy.observation(1, first=True), 0)
    remote.close()
    return answer


def test_a_page_in_a_browser_may_not_ask() -> None:
    with servers.ours(small_policy.policy()) as uri, pytest.raises(InvalidStatus, match="403"):
        connect(uri, origin="http://example.org").__enter__()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1"])
def test_an_address_for_all_needs_a_token(host: str) -> None:
    with pytest.raises(UsageError, match="RDTL-E057"):
        server.Door(host)


def test_a_port_that_is_taken() -> None:
    with (
        servers.ours(small_policy.policy()) as uri,
        pytest.raises(UsageError, match="RDTL-E058") as caught,
        servers.ours(small_policy.policy(), port=int(uri.rpartition(":")[2])),
    ):
        pass
    assert uri.rpartition(":")[2] in caught.value.problem.where


def options(**changes: Any) -> Options:
    """What the command passes on by default."""
    plain: dict[str, Any] = {field.name: None for field in fields(Options)}
    return Options(**{**plain, "device": "cpu", "host": "127.0.0.1", **changes})


def test_tokens_come_from_a_file_or_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("from-file\n")
    monkeypatch.setenv("RDTL_TEST_TOKEN", "from-variable")
    assert token(options()) is None
    assert token(options(token_file=str(tmp_path / "token"))) == "from-file"
    assert token(options(token_env="RDTL_TEST_TOKEN")) == "from-variable"


@pytest.mark.parametrize("content", ["", " \n", "two\nlines", "señor"])
def test_places_without_a_token(content: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(content)
    for place in ({"token_file": str(tmp_path / "token")}, {"token_env": "RDTL_TEST_UNSET"}):
        with pytest.raises(UsageError, match="RDTL-E057"):
            token(options(**place))
    with pytest.raises(UsageError, match="No such file"):
        token(options(token_file=str(tmp_path / "absent")))


@pytest.mark.slow
def test_a_device_that_is_none(tmp_path: Path) -> None:
    """The message of the command, not a traceback of torch."""
    argv = [sys.executable, "-P", "-m", "launcher", "serve", "nothing", "--device", "nonsense"]
    done = subprocess.run(
        argv, env=servers.environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2 and "RDTL-U030" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_packages_that_are_not_there_are_named() -> None:
    require_packages("msgpack", "websockets")
    with pytest.raises(RdtlError, match="cannot be served without rdtl_absent") as caught:
        require_packages("msgpack", "rdtl_absent")
    assert "[train,serve]" in caught.value.problem.fix


@pytest.mark.slow
def test_the_command_and_a_kill_in_the_middle(tmp_path: Path) -> None:
    """A server that dies and comes back: the episode goes on with the same bits."""
    folder = small_policy.trained_folder(tmp_path)
    seen = [servers.observation(seed, first=True) for seed in (1, 2, 3)]
    with servers.program(folder, "--rows", "2") as (uri, process):
        remote = open_policy(uri, patience_s=60)
        remote.begin(None, key(0))  # type: ignore[arg-type]
        expected = [remote.chunk(one, query) for query, one in enumerate(seen)]
        assert np.array_equal(remote.chunk(seen[0], 0), expected[0])
        process.kill()
        process.wait()
        port = int(uri.rpartition(":")[2])
        with (
            ThreadPoolExecutor(1) as pool,
            servers.program(folder, "--rows", "2", port=port) as (_, second),
        ):
            answer = pool.submit(remote.chunk, seen[1], 1)
            assert np.array_equal(answer.result(60), expected[1])
            second.terminate()
            assert second.wait(20) == 0
            assert "1 requests in 1 batches" in second.stdout.read()
        began = time.monotonic()
        remote._connection.patience_s = 0.5
        with pytest.raises(RdtlError, match="RDTL-E051") as caught:
            remote.chunk(seen[2], 2)
        assert caught.value.exit_status == 4 and time.monotonic() - began < 10


def test_another_server_in_the_place_of_the_first_is_refused() -> None:
    """Its answers are other ones, though its address is the same."""
    with servers.ours(small_policy.policy(rows=1)) as uri:
        remote = open_policy(uri, patience_s=10)
        remote.begin(None, key(0))  # type: ignore[arg-type]
        remote.chunk(small_policy.observation(1, first=True), 0)
    port = int(uri.rpartition(":")[2])
    other = small_policy.policy(rows=2, contract=LIBERO_RAW_VELOCITY)
    with servers.ours(other, port=port):
        with pytest.raises(RdtlError, match="RDTL-E050") as caught:
            remote.chunk(small_policy.observation(2), 1)
        assert "rows" in caught.value.problem.where
        remote.close()


def test_warm_up_leaves_answers_as_they_are() -> None:
    policy, plain = small_policy.policy(), small_policy.policy()
    server.warm_up(policy, servers.INSTRUCTION)
    asked = Asked(small_policy.observation(1), "a", 1)
    assert np.array_equal(server.chunks(policy, [asked]), server.chunks(plain, [asked]))


def test_a_sentence_without_words_is_no_warm_up(tmp_path: Path) -> None:
    policy = loading.load(small_policy.trained_folder(tmp_path), 0)
    with pytest.raises(RefusedError, match="RDTL-D020"):
        server.warm_up(policy, "")


@pytest.mark.parametrize("listens", [True, False], ids=["listening", "loading"])
def test_ctrl_c_ends_a_server_with_a_word(listens: bool, tmp_path: Path) -> None:
    folder = small_policy.trained_folder(tmp_path)
    mark = f"serve-{tmp_path.name}"

    def at_work() -> bool:
        if listens:
            return any("listening on" in path.read_text() for path in tmp_path.glob("*.out"))
        return has_loaded(mark, "libtorch")

    done = interrupt(
        *("serve", str(folder), "--port", "0", "--instruction", servers.INSTRUCTION),
        when=at_work,
        cwd=tmp_path,
        env=servers.environment(),
        mark=mark,
        timeout_s=240,
    )
    assert done.returncode == 130, done.stderr
    assert "interrupted; the same command serves again" in done.stderr
    assert "Traceback" not in done.stderr


def has_loaded(mark: str, library: str) -> bool:
    """Whether a marked process has mapped that library into its memory."""
    maps = (Path(f"/proc/{process}/maps") for process in descendants(mark))
    return any(library in each.read_text() for each in maps)
