"""The 128 slots: nothing is lost, and every contract's promises hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rdt.data import rotations, unified
from rdt.data.unified import RobotState
from rdt.spec.contract import (
    CONTRACTS,
    LIBERO_EEF6D,
    LIBERO_EEF6D_METRES,
    LIBERO_RAW_VELOCITY,
    LIBERO_VELOCITY,
    Contract,
)

unit = st.floats(-1.0, 1.0, width=32)
quaternions = arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(
    lambda q: np.linalg.norm(q) > 0.1
)
every_contract = pytest.mark.parametrize("contract", CONTRACTS.values(), ids=list(CONTRACTS))
JOINTS = [0.1, -0.2, 0.3, -2.0, 0.5, 2.0, 0.7]


def robot(position=(0.1, 0.2, 0.3), turn=(0.0, 0.0, 0.0), fingers=(0.04, -0.04)) -> RobotState:
    return RobotState(position, turn, fingers, JOINTS)


@every_contract
@given(actions=arrays(np.float64, (5, 7), elements=unit))
def test_actions_survive_the_round_trip(contract: Contract, actions: np.ndarray) -> None:
    if contract is LIBERO_RAW_VELOCITY:  # its gripper knows open and close only
        actions[:, 6] = np.where(actions[:, 6] < 0, -1.0, 1.0)
    slots = unified.encode_action(actions, contract)
    assert slots.shape == (5, 128)
    np.testing.assert_allclose(unified.decode_action(slots, contract), actions, atol=1e-6)
    assert not np.delete(slots, list(contract.action_slots), axis=-1).any()


@every_contract
def test_no_two_parts_share_a_slot_and_the_mask_holds_all_actions(contract: Contract) -> None:
    for slots in (contract.state_slots, contract.action_slots):
        assert len(slots) == len(set(slots))
    assert set(contract.action_slots) <= set(contract.mask_slots), "RDTL-D018"
    assert set(unified.STATE_SOURCES) >= {part.source for part in contract.state}
    assert set(unified.ACTION_SOURCES) >= {part.source for part in contract.action}


@every_contract
def test_states_fill_the_contract_s_slots_and_no_other(contract: Contract) -> None:
    state = unified.encode_state(robot(turn=(0.3, 0.2, 0.1)), contract)
    used = state[list(contract.state_slots)]
    assert np.all(used != 0)
    assert not np.delete(state, list(contract.state_slots)).any()


def test_velocity_slots() -> None:
    slots = unified.encode_action([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, -1.0], LIBERO_VELOCITY)
    np.testing.assert_allclose(slots[39:45], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert slots[10] == 1.0, "-1 opens the gripper, slot 10 = 1 is open"
    assert unified.encode_action([0.0] * 6 + [1.0], LIBERO_VELOCITY)[10] == 0.0
    state = unified.encode_state(robot(), LIBERO_VELOCITY)
    np.testing.assert_allclose(state[30:33], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(state[33:39], [1, 0, 0, 0, 1, 0])
    assert state[10] == 1.0
    half_open = unified.encode_state(robot(fingers=(0.01, -0.01)), LIBERO_VELOCITY)
    assert half_open[10] == pytest.approx(0.25)
    assert LIBERO_VELOCITY.mask_slots == (10, *range(30, 39), *range(39, 45))


def test_raw_velocity_slots() -> None:
    slots = unified.encode_action([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, -1.0], LIBERO_RAW_VELOCITY)
    np.testing.assert_allclose(slots[39:45], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert slots[10] == -1.0, "raw: -1 opens"
    slots[10] = -0.01
    assert unified.decode_action(slots, LIBERO_RAW_VELOCITY)[6] == -1.0
    slots[10] = 0.0
    assert unified.decode_action(slots, LIBERO_RAW_VELOCITY)[6] == 1.0
    state = unified.encode_state(robot(fingers=(0.05185, -0.04245)), LIBERO_RAW_VELOCITY)
    np.testing.assert_allclose(state[:7], JOINTS)
    np.testing.assert_allclose(state[10:12], [1.0, 0.0], atol=1e-12)
    assert LIBERO_RAW_VELOCITY.mask_slots == (10, *range(39, 45))


def test_end_effector_slots_in_centimetres_and_metres() -> None:
    action = [0.5, 0.0, -1.0, 0.0, 0.0, 1.0, 1.0]
    slots = unified.encode_action(action, LIBERO_EEF6D)
    np.testing.assert_allclose(slots[30:33], [0.6, 0.0, -1.2])
    np.testing.assert_allclose(
        slots[33:39], [np.cos(0.5), np.sin(0.5), 0, -np.sin(0.5), np.cos(0.5), 0], atol=1e-12
    )
    assert slots[10] == 1.0, "here 1 closes"
    metres = unified.encode_action(action, LIBERO_EEF6D_METRES)
    np.testing.assert_allclose(metres[30:33], [0.006, 0.0, -0.012])
    state = unified.encode_state(robot(turn=(0.3, 0.0, 0.0)), LIBERO_EEF6D)
    assert state[10] == 0.04
    np.testing.assert_allclose(state[33:36], [1, 0, 0])
    assert LIBERO_EEF6D.mask_slots == (*range(7), 10, *range(30, 39))


@every_contract
def test_decoding_clips_what_a_network_may_say(contract: Contract) -> None:
    for wild in (np.full(128, 9.0), np.full(128, -9.0)):
        decoded = unified.decode_action(wild, contract)
        assert np.abs(decoded).max() <= 1.0 and np.isfinite(decoded).all()


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
        found = rotations.axis_angle_to_6d(rotations.quat_to_axis_angle(sign * q))
        np.testing.assert_allclose(found, expected, atol=1e-9)


@given(quaternions.filter(lambda q: np.linalg.norm(q[:3]) > 0.1 * abs(q[3])))
def test_axis_angle_has_the_numbers_of_libero(q: np.ndarray) -> None:
    """The formula behind `ee_ori`, where it is well conditioned (a hand pointing down is)."""
    q = q / np.linalg.norm(q)
    libero = q[:3] * 2.0 * np.arccos(q[3]) / np.sqrt(1.0 - q[3] * q[3])
    np.testing.assert_allclose(rotations.quat_to_axis_angle(q), libero, atol=1e-6)


@given(arrays(np.float64, 3, elements=st.floats(-1.5, 1.5)))
def test_euler_angles_turn_about_fixed_axes(euler: np.ndarray) -> None:
    """Rz · Ry · Rx, built here from three single turns; the way back repairs the columns."""
    parts = [matrix([*(np.sin(a / 2) * np.eye(3)[i]), np.cos(a / 2)]) for i, a in enumerate(euler)]
    expected = (parts[2] @ parts[1] @ parts[0])[:, :2].T.reshape(-1)
    columns = rotations.euler_to_6d(euler)
    np.testing.assert_allclose(columns, expected, atol=1e-12)
    np.testing.assert_allclose(rotations.euler_of_6d(columns), euler, atol=1e-9)
    skewed = np.concatenate([2.0 * columns[:3], columns[3:] + 0.3 * columns[:3]])
    np.testing.assert_allclose(rotations.euler_of_6d(skewed), euler, atol=1e-9)


def test_scores_use_a_floor_for_slots_that_hardly_moved() -> None:
    state = unified.encode_state(robot(position=(0.5, 0.0, 1.0)), LIBERO_VELOCITY)
    mean, std = np.zeros(128), np.zeros(128)
    std[30] = 0.25
    scores = unified.normalise_state(state, mean, std, LIBERO_VELOCITY)
    assert scores.dtype == np.float32
    assert scores[30] == pytest.approx(2.0)
    assert scores[32] == pytest.approx(1.0 / LIBERO_VELOCITY.state_std_floor)
    assert not np.delete(scores, list(LIBERO_VELOCITY.state_slots)).any()


def test_a_fork_s_state_is_not_normalised() -> None:
    state = unified.encode_state(robot(), LIBERO_EEF6D)
    same = unified.normalise_state(state, np.full(128, 7.0), np.full(128, 9.0), LIBERO_EEF6D)
    np.testing.assert_array_equal(same, state.astype(np.float32))
