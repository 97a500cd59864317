"""The historic order of resets: the furniture drifts, and alike however the work is cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rdt.policy.references import Zero
from rdt.sim.episode import run_episode
from rdt.sim.sequential import SequentialSimulator, Simulators
from rdt.spec.record import EpisodeKey

pytestmark = [pytest.mark.sim, pytest.mark.slow]


@pytest.fixture
def simulators(config: Callable[..., dict[str, Any]]) -> Iterator[Simulators]:
    settings = config(
        max_steps=3,
        policies=["zero"],
        init_states=(0, 3),
        suites={"libero_goal": [8]},
        reset="openvla-sequential",
    )
    found = Simulators(settings)
    yield found
    found.discard()


def key(init_state: int) -> EpisodeKey:
    return EpisodeKey("zero", "libero_goal", 8, init_state, 0)


def test_scenes_drift_and_do_not_depend_on_what_was_run_before(simulators: Simulators) -> None:
    whole = []
    for state in range(3):
        simulator = simulators.of(key(state), blind=True)
        outcome = run_episode(simulator, Zero(), key(state), 8)
        whole.append((outcome.fixtures_sha256, simulator.state().tobytes()))
    assert len({fixtures for fixtures, _ in whole}) == 3
    for state in (2, 0, 1):  # another order: a new simulator, or resets without episodes
        simulator = simulators.of(key(state), blind=True)
        assert isinstance(simulator, SequentialSimulator) and simulator.resets == state
        outcome = run_episode(simulator, Zero(), key(state), 8)
        assert (outcome.fixtures_sha256, simulator.state().tobytes()) == whole[state]
