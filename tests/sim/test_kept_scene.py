"""Model and renderer are kept over resets where new ones would be the same, and only there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rdt.sim.kept import put_back
from rdt.sim.libero import Simulator

pytestmark = pytest.mark.sim
ACTION = np.array([0.5, -0.3, -0.4, 0.1, 0.0, 0.2, 1.0], np.float32)


def shown(simulator: Simulator, init_state: int) -> list[np.ndarray]:
    """Pictures after the reset and after some steps, and the state."""
    simulator.reset(init_state)
    seen = [*simulator.observation().pictures.values()]
    for step in range(4):
        simulator.step(ACTION, render=step == 3)
    return [*seen, *simulator.observation().pictures.values(), simulator.state()]


def as_robosuite_has_it(task: dict[str, Any]) -> Simulator:
    """A simulator whose every reset compiles a model and builds a renderer."""
    simulator = Simulator(task, blind=False)
    simulator.env.env._initialize_sim = simulator._scene._build
    simulator._scene.before_reset = lambda: None  # type: ignore[method-assign]
    return simulator


def content(model: Any) -> np.ndarray:
    """All bytes of a mujoco.MjModel."""
    import mujoco

    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "task_id"), [("libero_object", 0), ("libero_spatial", 4), ("libero_goal", 0)]
)
def test_a_kept_scene_is_what_a_new_one_is(task: dict[str, Any], suite: str, task_id: int) -> None:
    there = {**task, "suite": suite, "task_id": task_id, "camera_size": 128}
    kept, fresh = Simulator(there, blind=False), as_robosuite_has_it(there)
    for state in (1, 2, 3):
        for ours, theirs in zip(shown(kept, state), shown(fresh, state), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert kept.fixtures_sha256 == fresh.fixtures_sha256
    assert kept._scene.models == 2  # the first reset compiles what the others keep
    assert kept._scene.contexts == 3
    assert fresh._scene.models == fresh._scene.contexts == 0
    kept.close()
    fresh.close()


def test_a_model_is_put_back_in_every_byte(blind: Simulator) -> None:
    """After a reset and steps, and after writes that nothing here does, options among them."""
    import mujoco

    blind.reset(1)
    blind.step(ACTION)
    model = blind.env.sim.model._model
    as_compiled = content(mujoco.MjModel.from_xml_string(blind._scene._wanted()))
    assert not np.array_equal(content(model), as_compiled)
    model.opt.gravity[2], model.opt.timestep = -5.0, 0.001
    model.vis.map.znear, model.stat.extent = 0.3, 7.0
    model.tex_data[5] += 1
    model.mesh_vert[3] = 9.0
    put_back(model, blind._scene._compiled)
    np.testing.assert_array_equal(content(model), as_compiled)


@pytest.mark.slow
def test_another_model_gets_a_scene_of_its_own(seeing: Simulator) -> None:
    """A scene whose floor has another texture: the old context holds the old one."""
    scene, inner = seeing._scene, seeing.env.env
    seeing.reset(1)
    seeing.reset(1)
    models, contexts = scene.models, scene.contexts
    context = inner.sim._render_context_offscreen
    seeing.reset(1)
    assert (scene.models, scene.contexts) == (models + 1, contexts + 1)
    assert inner.sim._render_context_offscreen is context
    usual = seeing.observation().pictures["agentview"]
    inner.set_xml_processor(
        lambda xml: xml.replace("light-gray-floor-tile.png", "dark_floor_texture.png")
    )
    try:
        seeing.reset(1)
        assert inner.sim._render_context_offscreen is not context
        assert (seeing.observation().pictures["agentview"] != usual).mean() > 0.05
    finally:
        inner.set_xml_processor(None)
    seeing.reset(1)  # the model changed back
    assert (scene.models, scene.contexts) == (models + 1, contexts + 1)
    np.testing.assert_array_equal(seeing.observation().pictures["agentview"], usual)
