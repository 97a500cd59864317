"""The renderer is kept over resets where a new one would be the same, and only there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

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


def with_new_contexts(task: dict[str, Any]) -> Simulator:
    """A simulator as robosuite has it: each reset builds a renderer."""
    simulator = Simulator(task, blind=False)
    simulator._context = None
    return simulator


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "task_id"), [("libero_object", 0), ("libero_spatial", 4), ("libero_goal", 0)]
)
def test_a_kept_context_draws_what_a_new_one_draws(
    task: dict[str, Any], suite: str, task_id: int
) -> None:
    there = {**task, "suite": suite, "task_id": task_id, "camera_size": 128}
    kept, fresh = Simulator(there, blind=False), with_new_contexts(there)
    for state in (1, 2):
        for ours, theirs in zip(shown(kept, state), shown(fresh, state), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert kept._context is not None and kept._context.reused >= 1  # construction may differ
    kept.close()
    fresh.close()


def test_another_model_gets_a_context_of_its_own(seeing: Simulator) -> None:
    """A scene whose floor has another texture: the old context holds the old one."""
    keeper, inner = seeing._context, seeing.env.env
    assert keeper is not None
    seeing.reset(1)
    before, context = keeper.reused, inner.sim._render_context_offscreen
    seeing.reset(1)
    assert keeper.reused == before + 1
    assert inner.sim._render_context_offscreen is context
    usual = seeing.observation().pictures["agentview"]
    inner.set_xml_processor(
        lambda xml: xml.replace("light-gray-floor-tile.png", "dark_floor_texture.png")
    )
    try:
        seeing.reset(1)
        assert keeper.reused == before + 1
        assert inner.sim._render_context_offscreen is not context
        assert (seeing.observation().pictures["agentview"] != usual).mean() > 0.05
    finally:
        inner.set_xml_processor(None)
    seeing.reset(1)
    assert keeper.reused == before + 1  # the model changed back
    np.testing.assert_array_equal(seeing.observation().pictures["agentview"], usual)
