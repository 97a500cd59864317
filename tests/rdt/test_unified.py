"""The 128 slots: nothing is lost, and the contract's promises hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rdt.data import unified
from rdt.spec.contract import LIBERO_VELOCITY

unit = st.floats(-1.0, 1.0, width=32)
quaternions = arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(
    lambda q: np.linalg.norm(q) > 0.1
)


@given(arrays(np.float64, (5, 7), elements=unit))
def test_actions_survive_the_round_trip(actions: np.ndarray) -> None:
    slots = unified.encode_action(actions)
    assert slots.shape == (5, 128)
    np.testing.assert_allclose(unified.decode_action(slots), actions, atol=1e-6)
    unused = np.delete(slots, list(LIBERO_VELOCITY.action_slots), axis=-1)
    assert not unused.any()


def test_slots_are_those_of_the_contract() -> None:
    slots = unified.encode_action([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, -1.0])
    np.testing.assert_allclose(slots[39:45], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert slots[10] == 1.0, "-1 opens the gripper, slot 10 = 1 is open"
    assert unified.encode_action([0.0] * 6 + [1.0])[10] == 0.0
    state = unified.encode_state([0.1, 0.2, 0.3], [0.0, 0.0, 0.0], [0.04, -0.04])
    np.testing.assert_allclose(state[30:33], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(state[33:39], [1, 0, 0, 0, 1, 0])
    assert state[10] == 1.0
    assert unified.encode_state([0] * 3, [0] * 3, [0.01, -0.01])[10] == pytest.approx(0.25)


def test_decoding_clips_what_a_network_may_say() -> None:
    wild = np.full(128, 9.0)
    assert unified.decode_action(wild).tolist() == [1, 1, 1, 1, 1, 1, -1]


def test_the_mask_covers_states_and_actions() -> None:
    mask = unified.slot_mask()
    assert sorted(np.flatnonzero(mask)) == list(LIBERO_VELOCITY.used_slots)
    assert set(LIBERO_VELOCITY.action_slots) <= set(np.flatnonzero(mask))
    assert set(LIBERO_VELOCITY.state_slots) <= set(np.flatnonzero(mask))


def matrix(q: np.ndarray) -> np.ndarray:
    x, y, z, w = q
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@given(quaternions)
@example(np.array([0.0, 0.0, 8.75934351e-160, 1.0]))
@example(np.array([5e-324, 0.0, 0.0, -1.0]))
def test_a_quaternion_reaches_the_slots_as_its_matrix(q: np.ndarray) -> None:
    """Evaluation's road: xyzw → axis-angle → two columns; q and -q are one rotation."""
    q = q / np.linalg.norm(q)
    expected = matrix(q)[:, :2].T.reshape(-1)
    for sign in (1, -1):
        found = unified.rotation_6d(unified.quat_to_axis_angle(sign * q))
        np.testing.assert_allclose(found, expected, atol=1e-9)


@given(quaternions.filter(lambda q: np.linalg.norm(q[:3]) > 0.1 * abs(q[3])))
def test_axis_angle_has_the_numbers_of_libero(q: np.ndarray) -> None:
    """The formula behind `ee_ori`, where it is well conditioned (a hand pointing down is)."""
    q = q / np.linalg.norm(q)
    libero = q[:3] * 2.0 * np.arccos(q[3]) / np.sqrt(1.0 - q[3] * q[3])
    np.testing.assert_allclose(unified.quat_to_axis_angle(q), libero, atol=1e-6)


def test_scores_use_a_floor_for_slots_that_hardly_moved() -> None:
    state = unified.encode_state([0.5, 0.0, 1.0], [0, 0, 0], [0.04, -0.04])
    mean, std = np.zeros(128), np.zeros(128)
    std[30] = 0.25
    scores = unified.normalise_state(state, mean, std)
    assert scores.dtype == np.float32
    assert scores[30] == pytest.approx(2.0)
    assert scores[32] == pytest.approx(1.0 / LIBERO_VELOCITY.state_std_floor)
    assert not np.delete(scores, list(LIBERO_VELOCITY.state_slots)).any()
