"""The simulator as a deterministic function, lazy pictures, the wide variant."""

import os
import subprocess
import sys
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launcher import diagnose
from launcher.core.errors import RdtlError, RefusedError, UsageError
from rdt.data import rotations
from rdt.sim import backend, probe
from rdt.sim.expert import expert
from rdt.sim.geometry import collision_points
from rdt.sim.libero import SENSORS, Simulator
from rdt.sim.tasks import find_task
from rdt.sim.wide import CLEARANCE_M, widened
from rdt.spec.protocol import SETTLE_ACTION

pytestmark = pytest.mark.sim
SETTLE = np.array(SETTLE_ACTION, np.float32)


def test_imports_no_torch() -> None:
    code = (
        "import sys, rdt.sim.probe, rdt.sim.video, rdt.sim.demo_file, rdt.sim.episode;"
        "import rdt.policy.references, jobs.evaluate, jobs.collect, jobs.videos;"
        "rdt.sim.backend.prepare(); import libero.libero;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


def test_floor_is_drawn_as_published(seeing: Simulator) -> None:
    seeing.reset(0)
    assert probe.floor_colour(seeing) == pytest.approx(probe.FLOOR_RGB, abs=probe.FLOOR_TOLERANCE)


@pytest.mark.parametrize(("name", "version"), [("mujoco", "3.4.0"), ("robosuite", "1.4.1")])
def test_other_versions_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, version: str
) -> None:
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda n: version if n == name else real(n))
    with pytest.raises(RefusedError) as caught:
        backend.check_versions()
    assert caught.value.problem.code == "RDTL-E003"


@pytest.mark.parametrize("place", [("libero_nothing", 0), ("libero_object", 10)])
def test_unknown_task(place: tuple[str, int]) -> None:
    with pytest.raises(UsageError, match="RDTL-U020"):
        find_task(*place)


def test_unknown_initial_state(blind: Simulator) -> None:
    with pytest.raises(UsageError, match="RDTL-U021"):
        blind.reset(50)


def test_reset_forgets_what_happened(blind: Simulator) -> None:
    blind.reset(3)
    state, fixtures = blind.state(), blind.fixtures_sha256
    for action in (SETTLE, np.full(7, 0.7, np.float32)):
        blind.step(action)
    blind.reset(4)
    assert not np.array_equal(blind.state(), state)
    blind.reset(3)
    assert blind.fixtures_sha256 == fixtures
    np.testing.assert_array_equal(blind.state(), state)


@pytest.mark.slow
def test_furniture_stands_alike_after_each_reset(task: dict[str, Any]) -> None:
    """In this task a drawer is opened at reset, which makes LIBERO's list of initialisers grow."""
    kitchen = Simulator({**task, "suite": "libero_spatial", "task_id": 4}, blind=True)
    hashes = set()
    for _ in range(2):
        np.random.random(3)  # the fixtures come from NumPy's global generator
        kitchen.reset(0)
        hashes.add(kitchen.fixtures_sha256)
    kitchen.close()
    assert len(hashes) == 1


def test_blind_equals_seeing(blind: Simulator, seeing: Simulator) -> None:
    action = np.array([0.5, -0.3, -0.4, 0.1, 0.0, 0.2, 1.0], np.float32)
    for simulator in (blind, seeing):
        simulator.reset(2)
        for _ in range(5):
            simulator.step(action)
    np.testing.assert_array_equal(blind.state(), seeing.state())
    assert blind.fixtures_sha256 == seeing.fixtures_sha256
    np.testing.assert_array_equal(blind.observation().eef_pos, seeing.observation().eef_pos)


@pytest.mark.slow
def test_lazy_pictures_equal_eager_ones(seeing: Simulator) -> None:
    """Against LIBERO's own environment, which renders at every step."""
    actions = np.random.default_rng(0).uniform(-1, 1, (12, 7)).astype(np.float32)
    looks = {3, 4, 11}
    seeing.reset(1)
    lazy = [seeing.observation()]
    for step, action in enumerate(actions):
        seeing.step(action, render=step in looks)
        if step in looks:
            lazy.append(seeing.observation())
        else:
            assert seeing.observation().pictures == {}
    assert seeing.renders == 2 * (1 + len(looks))

    raw, final, renders = _eager(seeing, actions)
    assert renders == 2 * (1 + 10 + len(actions)) > 5 * seeing.renders
    eager = [raw[0]] + [raw[step + 1] for step in sorted(looks)]
    for ours, theirs in zip(lazy, eager, strict=True):
        assert set(ours.pictures) == set(SENSORS)
        for camera, sensor in SENSORS.items():
            np.testing.assert_array_equal(ours.pictures[camera], theirs[f"{sensor}_image"])
        np.testing.assert_array_equal(ours.eef_quat, theirs["robot0_eef_quat"])
    np.testing.assert_array_equal(seeing.state(), final)


def test_a_reset_after_the_initial_state_discards_it(blind: Simulator) -> None:
    """In LIBERO's own environment: every episode then begins alike, wherever it should."""
    wrong, ours = {}, {}
    for number in (1, 3):
        blind.env.env.object_property_initializers.clear()
        blind.env.seed(blind.task["env_seed"])
        blind.env.set_init_state(blind.info.init_states[number])
        blind.env.reset()
        wrong[number] = blind.state()
    for number in (1, 3):
        blind.reset(number)
        ours[number] = blind.state()
    np.testing.assert_array_equal(wrong[1], wrong[3])
    objects = np.s_[10 : 1 + blind.env.sim.model.nq]  # behind time and the robot's 9 joints

    def off_mm(state: np.ndarray, number: int) -> float:
        placed = blind.info.init_states[number][objects].reshape(-1, 7)
        return float(1000 * np.abs(state[objects].reshape(-1, 7) - placed)[:, :2].max())

    for number in (1, 3):
        assert off_mm(ours[number], number) < 1 < 5 < off_mm(wrong[number], number)


@pytest.mark.slow
def test_a_soft_reset_leaves_traces(blind: Simulator) -> None:
    """robosuite's own: the same initial state, and after settling thousandths elsewhere."""
    action = np.array([0.5, -0.3, -0.4, 0.1, 0.0, 0.2, 1.0], np.float32)

    def begun(hard: bool) -> np.ndarray:
        blind.reset(2)
        for _ in range(5):
            blind.step(action)
        blind.env.env.hard_reset = hard
        try:
            blind.reset(1)
        finally:
            blind.env.env.hard_reset = True
        return blind.state()

    first = begun(hard=True)
    np.testing.assert_array_equal(begun(hard=True), first)
    assert 1e-4 < np.abs(begun(hard=False) - first).max() < 0.1


def test_robosuite_s_conversion_changes_what_it_is_given() -> None:
    """And LIBERO's policies were trained on its sign: a quaternion must not be turned first."""
    from robosuite.utils import transform_utils

    rounded = np.array([0.0, 0.0, 0.0, -1.0 - 1e-7])  # as 32 bits may leave it
    kept = rounded.copy()
    assert rotations.quat_to_axis_angle(rounded).shape == (3,)
    np.testing.assert_array_equal(rounded, kept)
    transform_utils.quat2axisangle(rounded)
    assert rounded[3] == -1 != kept[3]
    beyond = np.array([0.8, 0.0, 0.0, -0.6])
    theirs = transform_utils.quat2axisangle(beyond.copy())
    np.testing.assert_allclose(rotations.quat_to_axis_angle(beyond), theirs, atol=1e-12)
    assert np.abs(rotations.quat_to_axis_angle(-beyond) - theirs).max() > 1


def test_a_closed_environment_is_recognised(task: dict[str, Any], tmp_path: Path) -> None:
    """It cannot be used again, and what it then says has a code; a new one works."""
    first = Simulator({**task, "camera_size": 64}, blind=True)
    first.close()
    with pytest.raises(AttributeError) as caught:
        first.env.step(SETTLE)
    log = tmp_path / "log"
    log.write_text("".join(traceback.format_exception(caught.value)))
    assert [found.code for found in diagnose.diagnose(log)] == ["RDTL-E026"]
    second = Simulator({**task, "camera_size": 64}, blind=True)
    second.reset(0)
    second.close()


def _eager(seeing: Simulator, actions: np.ndarray) -> tuple[list[dict[str, Any]], np.ndarray, int]:
    """What it observes after settling and each action, its last state, how often it drew."""
    from libero.libero.envs import OffScreenRenderEnv

    size = seeing.task["camera_size"]
    env = OffScreenRenderEnv(
        bddl_file_name=str(seeing.info.bddl), camera_heights=size, camera_widths=size
    )
    env.env.object_property_initializers.clear()
    env.seed(seeing.task["env_seed"])
    env.reset()
    env.sim.data._data.qacc_warmstart[:] = 0
    drawn, render = [], env.sim.render
    env.sim.render = lambda *given, **named: drawn.append(0) or render(*given, **named)
    env.set_init_state(seeing.info.init_states[1])
    for _ in range(10):
        settled = env.step(SETTLE.astype(np.float64))[0]
    raw = [settled] + [env.step(action.astype(np.float64))[0] for action in actions]
    final = env.get_sim_state()
    env.close()
    return raw, final, len(drawn)


def test_no_picture_of_a_blind_simulator(blind: Simulator) -> None:
    blind.reset(0)
    assert blind.observation().pictures == {}
    with pytest.raises(ValueError, match="blind"):
        blind.step(SETTLE, render=True)


def test_positive_gripper_command_closes(blind: Simulator) -> None:
    widths = {}
    for command in (-1.0, 1.0):
        blind.reset(0)
        for _ in range(10):
            blind.step(np.array([0, 0, 0, 0, 0, 0, command], np.float32))
        left, right = blind.observation().gripper_qpos
        widths[command] = left - right
    assert widths[-1.0] > 0.07
    assert widths[1.0] < 0.01


def test_unstable_physics_is_an_error(blind: Simulator) -> None:
    blind.reset(0)
    blind.env.sim.data._data.qvel[0] = 1e20
    with pytest.raises(RuntimeError, match="unstable"):
        blind.step(SETTLE)


def test_action_that_is_no_number(blind: Simulator) -> None:
    blind.reset(0)
    with pytest.raises(ValueError, match="finite"):
        blind.step(np.full(7, np.nan, np.float32))


def test_expert_succeeds_in_time(blind: Simulator) -> None:
    blind.reset(0)
    for steps, action in enumerate(expert(blind), start=1):
        if blind.step(action):
            break
        assert steps < 140
    assert 60 < steps <= 140


def test_wide_shifts_and_is_deterministic(task: dict[str, Any], blind: Simulator) -> None:
    wide = Simulator({**task, "wide_mm": 60}, blind=True)
    target, basket = wide.env.obj_of_interest
    shifts = []
    for init_state in (0, 1):
        blind.reset(init_state)
        wide.reset(init_state)
        for name in wide.env.env.objects_dict:
            shift = _centre(wide, name) - _centre(blind, name)
            if name in (target, basket):
                shifts.append(shift)
                assert 0.002 < np.abs(shift[:2]).max() < 0.062
            else:
                assert np.abs(shift).max() < 0.002
    assert np.abs(shifts[0] - shifts[2]).max() > 0.002  # another initial state, another shift
    state = wide.state()
    wide.reset(0)
    wide.reset(1)
    np.testing.assert_array_equal(wide.state(), state)
    _assert_always_apart(wide)
    _assert_no_place_is_told(wide)
    wide.close()


def _centre(simulator: Simulator, name: str) -> np.ndarray:
    inner = simulator.env.env
    return np.array(inner.sim.data.body_xpos[inner.obj_body_id[name]])


def _assert_always_apart(wide: Simulator) -> None:
    """Shifted objects keep their distance from all others along x or y, for any seed."""
    for seed in range(100):  # four of these collide at first
        state = widened(wide.env, wide.info.init_states[0], 80, (seed, 0))
        wide.env.set_state(state)
        wide.env.sim.forward()
        boxes = {}
        for name in wide.env.env.objects_dict:
            points = collision_points(wide.env, name)[:, :2]
            boxes[name] = points.min(axis=0), points.max(axis=0)
        for moved in wide.env.obj_of_interest:
            for low, high in (box for name, box in boxes.items() if name != moved):
                gap = np.maximum(low - boxes[moved][1], boxes[moved][0] - high)
                assert gap.max() > CLEARANCE_M - 1e-9


def _assert_no_place_is_told(wide: Simulator) -> None:
    """The target stands in a neighbour, and may go no further than a millimetre."""
    target, *_ = wide.env.obj_of_interest
    neighbour = next(n for n in wide.env.env.objects_dict if n not in wide.env.obj_of_interest)
    model, state = wide.env.sim.model, wide.info.init_states[0].copy()
    places = [
        1 + model.get_joint_qpos_addr(wide.env.env.objects_dict[name].joints[0])[0]
        for name in (target, neighbour)
    ]
    state[places[0] : places[0] + 2] = state[places[1] : places[1] + 2]
    with pytest.raises(RdtlError, match="RDTL-E040"):
        widened(wide.env, state, 1, (0, 0))


def test_wide_refuses_other_suites(task: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="RDTL-U022"):
        Simulator({**task, "suite": "libero_spatial", "wide_mm": 30}, blind=True)


def test_the_step_before_a_query_is_seen_where_the_policy_wants_it(seeing: Simulator) -> None:
    """Two successive frames of one simulation; nothing stands before the first one."""
    actions = np.random.default_rng(1).uniform(-1, 1, (4, 7)).astype(np.float32)
    seeing.reset(1)
    first = seeing.observation()
    assert set(first.pictures) == set(SENSORS)
    assert first.previous is None
    seen = [first]
    for action, render in zip(actions, (True, False, True, True), strict=True):
        seeing.step(action, render=render)
        seen.append(seeing.observation())
    one, two, three, four = seen[1:]
    assert one.previous is not None and four.previous is not None
    for camera in SENSORS:
        np.testing.assert_array_equal(one.previous[camera], first.pictures[camera])
        np.testing.assert_array_equal(four.previous[camera], three.pictures[camera])
        assert not np.array_equal(four.previous[camera], four.pictures[camera])
    assert two.previous is not None and two.pictures == {}
    assert three.previous is None  # it was not rendered
    seeing.reset(1)
    assert seeing.observation().previous is None
