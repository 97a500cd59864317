"""Any openpi server as a policy: what it is sent, and what of its answers is believed."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from launcher.core.errors import RdtlError
from rdt.policy.policy import EpisodeError
from rdt.policy.remote import RemotePolicy, open_policy
from rdt.serve import openpi
from rdt.sim.episode import PolicyError, _Asked
from rdt.spec.record import EpisodeKey
from tests.serve import servers
from tests.test_layers import modules_after

KEY = EpisodeKey("remote", "libero_object", 0, 3, 0)
GOOD = np.linspace(-1, 1, 70, dtype=np.float32).reshape(10, 7)


def opened(uri: str, **settings: Any) -> RemotePolicy:
    policy = open_policy(uri, **{"patience_s": 5, "deadline_s": 5, **settings})
    policy.begin(None, KEY)  # type: ignore[arg-type]
    return policy


def test_it_is_sent_openpis_keys_and_nothing_else() -> None:
    seen = servers.observation(1, first=True, size=256)
    with servers.foreign(lambda asked: {"actions": GOOD}, {"model": "pi05"}) as (uri, asked):
        policy = opened(uri)
        actions = policy.chunk(seen, 0)
        policy.close()
    assert actions.dtype == np.float32 and np.array_equal(actions, GOOD)
    (message,) = asked
    assert sorted(message) == sorted(policy.sent["keys"])
    assert message["observation/image"].shape == (224, 224, 3)
    assert message["observation/image"].dtype == np.uint8
    assert message["observation/state"].shape == (8,)
    assert np.array_equal(message["observation/image"], openpi.to_wire(seen)["observation/image"])
    assert policy.metadata == {"model": "pi05"} and not policy.sees_previous


def answered(reply: Any, **settings: Any) -> RdtlError:
    """The error that an answer of a foreign server becomes."""
    with servers.foreign(lambda asked: reply) as (uri, _):
        policy = opened(uri, **settings)
        with pytest.raises(RdtlError) as caught:
            policy.chunk(servers.observation(1), 2)
        policy.close()
    return caught.value


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (np.zeros((10, 8)), "shape (10, 8)"),
        (np.zeros(7), "shape (7,)"),
        (np.zeros((1, 10, 7)), "shape (1, 10, 7)"),
        (np.zeros((0, 7)), "shape (0, 7)"),
        ([[0.0] * 7], "the answer has actions"),
        (np.full((2, 7), "0"), "the answer has actions"),
    ],
)
def test_actions_of_another_shape(actions: Any, words: str) -> None:
    error = answered({"actions": actions})
    assert error.problem.code == "RDTL-E054" and words in error.problem.where
    assert not isinstance(error, EpisodeError)  # no other episode would fare better


def test_an_answer_of_another_protocol() -> None:
    error = answered({"status": "ok", "ok": True, "data": {"actions": GOOD}})
    assert error.problem.code == "RDTL-E054" and "data, ok, status" in error.problem.where


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_actions_that_are_not_finite(bad: float) -> None:
    actions = GOOD.astype(np.float64)
    actions[3, 5] = bad
    error = answered({"actions": actions})
    assert error.problem.code == "RDTL-E055" and isinstance(error, EpisodeError)
    assert "actions[3, 5]" in error.problem.where and "query 2" in error.problem.where


def test_a_traceback_in_place_of_an_answer() -> None:
    error = answered("Traceback (most recent call last):\nKeyError: 'observation/image'")
    assert error.problem.code == "RDTL-E053" and isinstance(error, EpisodeError)
    assert "KeyError: 'observation/image'" in error.problem.where


def test_a_late_answer_is_not_taken_for_the_next_one() -> None:
    go = threading.Event()

    def slowly(asked: dict[str, Any]) -> Any:
        go.wait(10)
        return {"actions": GOOD}

    with servers.foreign(slowly) as (uri, asked):
        policy = opened(uri, deadline_s=0.3)
        with pytest.raises(RdtlError, match="RDTL-E052") as caught:
            policy.chunk(servers.observation(1), 0)
        go.set()
        assert caught.value.exit_status == 4
        with pytest.raises(EpisodeError, match="RDTL-E051"):
            policy.chunk(servers.observation(2), 1)
        assert len(asked) == 1
        policy.close()


def test_a_broken_connection_is_a_failed_try_and_never_a_second_question() -> None:
    """The noise of a foreign server comes from a stream: another answer would be another one."""
    replies = iter([{"actions": GOOD}, None, {"actions": -GOOD}])
    with servers.foreign(lambda asked: next(replies)) as (uri, asked):
        policy = opened(uri)
        policy.chunk(servers.observation(1), 0)
        for _ in range(2):
            with pytest.raises(EpisodeError, match="RDTL-E051"):
                policy.chunk(servers.observation(2), 1)
        assert len(asked) == 2
        policy.begin(None, KEY)  # type: ignore[arg-type]
        assert np.array_equal(policy.chunk(servers.observation(1), 0), -GOOD)
        policy.close()


def test_the_harness_counts_it_as_a_failure_of_the_policy() -> None:
    """An EpisodeError is a status of the episode, and does not end the evaluation."""
    with servers.foreign(lambda asked: {"actions": np.full((2, 7), np.nan)}) as (uri, _):
        policy = open_policy(uri, patience_s=5)
        asked = _Asked(policy, None, KEY)  # type: ignore[arg-type]
        with pytest.raises(PolicyError, match="query 0: RDTL-E055"):
            asked.chunk(servers.observation(1))
        policy.close()


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ({"type": "hello", "payload": {}, "seq": 0}, "RDTL-E050"),
        ([1, 2], "RDTL-E050"),
        ({"camera_rotation": "raw"}, "RDTL-E007"),
        ({"gripper": "0 = close, 1 = open"}, "RDTL-E008"),
    ],
)
def test_servers_that_mean_something_else(metadata: Any, code: str) -> None:
    with (
        servers.foreign(lambda asked: None, metadata) as (uri, _),
        pytest.raises(RdtlError, match=code),
    ):
        open_policy(uri, patience_s=5)


@pytest.mark.parametrize("uri", ["127.0.0.1:8000", "http://127.0.0.1:8000", "ws://"])
def test_addresses_that_are_none(uri: str) -> None:
    with pytest.raises(RdtlError, match="RDTL-E050") as caught:
        open_policy(uri, patience_s=5)
    assert caught.value.exit_status == 2


@pytest.fixture
def silent() -> Iterator[str]:
    """A port that takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"ws://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.slow
def test_nobody_there(silent: str) -> None:
    """A silent port, and one that nobody listens on: patience ends, and says so."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"ws://127.0.0.1:{unused.getsockname()[1]}"
        for uri in (closed, silent):
            began = time.monotonic()
            with pytest.raises(RdtlError, match="RDTL-E051") as caught:
                open_policy(uri, patience_s=0.5)
            assert caught.value.exit_status == 4 and 0.5 <= time.monotonic() - began < 4


def test_a_server_that_still_starts_is_waited_for() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    found: list[RemotePolicy] = []
    waiting = threading.Thread(
        target=lambda: found.append(open_policy(f"ws://127.0.0.1:{port}", patience_s=20))
    )
    waiting.start()
    time.sleep(0.5)
    assert waiting.is_alive()
    with servers.foreign(lambda asked: {"actions": GOOD}, port=port) as (_, _):
        waiting.join(20)
        assert np.array_equal(found[0].chunk(servers.observation(1), 0), GOOD)
        found[0].close()


def test_a_client_needs_no_torch() -> None:
    """A simulator's process asks; torch would take 200 MB and seconds of each."""
    found = modules_after("import rdt.policy.remote")
    assert found & {"torch", "transformers", "mujoco", "h5py"} == set()


def test_our_own_server_is_asked_again_but_not_for_ever() -> None:
    with servers.foreign(lambda asked: None, {"protocol": "rdtl/1"}) as (uri, asked):
        policy = opened(uri)
        with pytest.raises(EpisodeError, match="RDTL-E051") as caught:
            policy.chunk(servers.observation(1), 7)
        policy.close()
    assert "each of 3 tries" in caught.value.problem.why
    assert [message["query"] for message in asked] == [7, 7, 7]
    assert {message["episode"] for message in asked} == {KEY.text()}
