"""What stands on the wire, and what a session makes of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from launcher.core.errors import RefusedError
from rdt.policy.policy import Observation
from rdt.serve import codec, exact, openpi
from tests.rdt import small_policy
from tests.serve import servers


def published_state(observation: Observation) -> np.ndarray:
    """The eight numbers by the formula of openpi's LIBERO example."""
    x, y, z, w = observation.eef_quat
    angle = 2 * math.acos(w) / math.sqrt(1 - w * w)
    turn = np.array([x, y, z]) * angle
    return np.concatenate([observation.eef_pos, turn, observation.gripper_qpos])


def test_a_request_of_openpis_libero_example() -> None:
    seen = servers.observation(3, size=openpi.SIZE)
    sent = openpi.to_wire(seen)
    assert sorted(sent) == sorted(openpi.SENT["keys"])
    assert np.array_equal(sent["observation/image"], seen.pictures["agentview"][::-1, ::-1])
    assert np.array_equal(sent["observation/wrist_image"], seen.pictures["eye_in_hand"][::-1, ::-1])
    assert np.allclose(sent["observation/state"], published_state(seen), atol=1e-12)
    assert sent["prompt"] == seen.instruction


@pytest.mark.parametrize("seed", range(4))
def test_a_server_reads_what_a_client_sends(seed: int) -> None:
    """Pictures bit for bit; the pose up to the rounding of its two forms."""
    quat = np.random.default_rng(seed).standard_normal(4)
    seen = servers.observation(seed + 1, size=openpi.SIZE)
    seen = replace(seen, eef_quat=quat / np.linalg.norm(quat))
    message = codec.unpack(codec.pack(openpi.to_wire(seen)))
    read = openpi.Session("one", eats_joints=False).read(message).observation
    for name, picture in seen.pictures.items():
        assert np.array_equal(read.pictures[name], picture)
    assert np.allclose(read.eef_quat, seen.eef_quat, atol=1e-12)
    assert np.array_equal(read.eef_pos, seen.eef_pos)
    assert np.array_equal(read.gripper_qpos, seen.gripper_qpos)
    assert np.isnan(read.joint_pos).all() and read.previous is None


@pytest.mark.parametrize("shape", [(60, 60, 3), (120, 90, 3), (90, 120, 3), (448, 448, 3)])
def test_pictures_keep_their_sides_ratio(shape: tuple[int, ...]) -> None:
    picture = np.full(shape, 200, np.uint8)
    sized = openpi.sized(picture)
    assert sized.shape == (224, 224, 3)
    inside = sized[:, :, 0] > 0
    height, width = inside.any(1).sum(), inside.any(0).sum()
    assert max(height, width) == 224 and height / width == pytest.approx(shape[0] / shape[1])
    rows = np.flatnonzero(inside.any(1))
    assert rows[0] == (224 - height) // 2  # in the middle


def message(**changes: Any) -> dict[str, Any]:
    """A request, with keys changed; None removes one."""
    good = {**openpi.to_wire(servers.observation(1)), **changes}
    return {key: value for key, value in good.items() if value is not None}


def test_other_forms_of_a_picture_are_the_same_picture() -> None:
    good = message()
    session = openpi.Session("one", eats_joints=False)
    expected = session.read(good).observation.pictures["agentview"]
    picture = good["observation/image"]
    for other in (picture.transpose(2, 0, 1), np.nextafter(picture / 255, 1)):
        read = session.read({**good, "observation/image": other})
        assert np.array_equal(read.observation.pictures["agentview"], expected)


def test_history_is_that_of_the_last_query_and_ends_with_the_episode() -> None:
    session = openpi.Session("one", eats_joints=False)

    def ask(seed: int, **changes: Any) -> exact.Asked:
        sent = {**openpi.to_wire(servers.observation(seed + 1)), "prompt": "go", **changes}
        asked = session.read(sent)
        session.answered(asked)
        return asked

    first, second = ask(0), ask(1)
    assert (first.query, second.query) == (0, 1) and first.episode == second.episode
    assert first.observation.previous is None
    assert second.observation.previous is first.observation.pictures
    other = ask(2, prompt="stop")
    assert other.query == 0 and other.observation.previous is None
    assert other.episode != first.episode
    named = ask(3, prompt="stop", episode="libero_object-t0-i3")
    assert named.query == 0 and named.episode == "libero_object-t0-i3"
    assert ask(4, prompt="stop", episode="libero_object-t0-i3").query == 1


def test_a_question_without_answer_is_not_counted() -> None:
    session = openpi.Session("one", eats_joints=False)
    assert [session.read(message()).query for _ in range(2)] == [0, 0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": None}, "message['prompt']: missing, expected a text"),
        ({"observation/state": None}, "missing, expected 8 numbers"),
        ({"observation/state": np.zeros(7)}, "ndarray (7,), expected 8 numbers"),
        ({"observation/state": [0.0] * 8}, "list, expected 8 numbers"),
        ({"observation/image": None}, "message['observation/image']: missing"),
        ({"observation/wrist_image": np.zeros((4, 4), np.uint8)}, "expected a picture"),
        ({"observation/image": np.full((4, 4, 3), 9.0)}, "numbers in 0 … 1"),
        ({"observation/image": np.full((4, 4, 3), np.nan)}, "numbers in 0 … 1"),
    ],
)
def test_requests_that_lack_something(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedError, match="RDTL-E056") as caught:
        openpi.Session("one", eats_joints=False).read(message(**changes))
    assert words in caught.value.problem.where


def test_joints_are_asked_for_where_the_policy_eats_them() -> None:
    session = openpi.Session("one", eats_joints=True)
    with pytest.raises(RefusedError, match="RDTL-E056") as caught:
        session.read(message())
    assert openpi.JOINTS in caught.value.problem.where
    joints = np.arange(7.0)
    assert np.array_equal(
        session.read(message(**{openpi.JOINTS: joints})).observation.joint_pos, joints
    )


@pytest.mark.parametrize("first", [True, False])
def test_the_exact_message_holds_everything(first: bool) -> None:
    seen = small_policy.observation(5, first=first)
    asked = exact.Asked(seen, "rdt-libero_object-t0-i1-n0", 4)
    back = exact.from_wire(codec.unpack(codec.pack(exact.to_wire(asked))))
    assert (back.episode, back.query) == (asked.episode, asked.query)
    for name, value in vars(seen).items():
        assert _same(getattr(back.observation, name), value), name


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(_same(found[k], expected[k]) for k in expected)
    if isinstance(expected, np.ndarray):
        return found.dtype == expected.dtype and np.array_equal(found, expected)
    return bool(found == expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"rdtl": "rdtl/2"},
        {"query": -1},
        {"query": True},
        {"episode": 3},
        {"instruction": None},
        {"eef_quat": np.zeros(3)},
        {"joint_pos": np.zeros(7, complex)},
        {"pictures": [np.zeros((2, 2, 3), np.uint8)]},
        {"previous": {"agentview": "picture"}},
    ],
)
def test_exact_messages_that_are_none(changes: dict[str, Any]) -> None:
    asked = exact.Asked(small_policy.observation(5), "episode", 4)
    with pytest.raises(RefusedError, match="RDTL-E056") as caught:
        exact.from_wire({**exact.to_wire(asked), **changes})
    assert next(iter(changes)) in caught.value.problem.where
