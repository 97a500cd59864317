"""One demonstration: find a successful noisy run of the expert, then replay it with pictures.

The run is blind and cheap; only a success is replayed and rendered. The replay
executes the recorded actions, so it also proves that they alone reproduce the
episode, which blind replay and the videos rely on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RdtlError
from rdt.policy.policy import Observation
from rdt.sim.expert import expert
from rdt.sim.libero import Simulator

NOISE_MEMORY = 0.8  # share of the noise that survives one control step


@dataclass(frozen=True)
class Run:
    """A successful run: ``label`` (T, 7) the clean actions, ``executed`` (T, 7) what moved the
    robot, both float32; ``states`` (T, n) float64 before each action."""

    init_state: int
    retry: int
    label: NDArray[np.float32]
    executed: NDArray[np.float32]
    states: NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """What is seen and felt before one action; ``pictures`` date from step ``frame_step``."""

    observation: Observation
    pictures: dict[str, NDArray[np.uint8]]
    frame_step: int


class Noise:
    """Ornstein–Uhlenbeck noise on the translation: two standard deviations are ``amplitude``."""

    def __init__(self, amplitude: float, seed: tuple[int, int, int]) -> None:
        self._random = np.random.default_rng(seed)
        self._scale = amplitude / 2 * np.sqrt(1 - NOISE_MEMORY**2)
        self._value = np.zeros(3)

    def disturb(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """A disturbed copy of ``action`` (7,), clipped to [-1, 1]."""
        self._value = NOISE_MEMORY * self._value + self._scale * self._random.standard_normal(3)
        disturbed = action.copy()
        disturbed[:3] = np.clip(action[:3] + self._value, -1, 1)
        return disturbed


def find_run(simulator: Simulator, collect: dict[str, Any], seed: int, number: int) -> Run:
    """The successful run of demonstration ``number``; the same whoever computes it.

    Retry r uses the r-th next initial state of ``collect.init_states`` and noise of
    its own. Raises RdtlError RDTL-D040 when every initial state failed once.
    """
    first, end = collect["init_states"]
    states = end - first
    for retry in range(states):
        simulator.reset(first + (number + retry) % states)
        run = _attempt(simulator, Noise(collect["noise"], (seed, number, retry)))
        if run is not None:
            label, executed, before = run
            return Run(first + (number + retry) % states, retry, label, executed, before)
    raise RdtlError(
        "RDTL-D040",
        f"the expert failed {states} times in a row",
        where=f"demonstration {number}, collect.init_states [{first}, {end})",
        why="without a success there is nothing to demonstrate",
        fix="lower collect.noise, raise task.max_steps or choose another task",
    )


def _attempt(
    simulator: Simulator, noise: Noise
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]] | None:
    """Labels, executed actions and states of one run from the present state, if it succeeds."""
    labels, executed, states = [], [], []
    for action in expert(simulator):
        if len(labels) == simulator.task["max_steps"]:
            break
        labels.append(action)
        states.append(simulator.state())
        executed.append(noise.disturb(action))
        if simulator.step(executed[-1]):
            return np.stack(labels), np.stack(executed), np.stack(states)
    return None


def replay(simulator: Simulator, run: Run, render_every: int) -> list[Frame]:
    """Execute the recorded actions again, rendering each ``render_every``-th observation.

    Raises RdtlError RDTL-D041 when the replay leaves the recorded states or does not
    succeed at the same step.
    """
    simulator.reset(run.init_state)
    frames: list[Frame] = []
    for step, action in enumerate(run.executed):
        frames.append(_frame(simulator, step, frames))
        same = np.array_equal(simulator.state(), run.states[step])
        done = simulator.step(action, render=(step + 1) % render_every == 0)
        if not same or done != (step == len(run.executed) - 1):
            raise RdtlError(
                "RDTL-D041",
                "replaying a demonstration gave another episode",
                where=f"initial state {run.init_state}, step {step}: "
                f"{'another outcome' if same else 'another simulator state'}",
                why="pictures and actions would not belong together",
                fix="run the collection again; report it if it happens again",
            )
    return frames


def _frame(simulator: Simulator, step: int, frames: list[Frame]) -> Frame:
    observation = simulator.observation()
    if observation.pictures:
        return Frame(observation, observation.pictures, step)
    return Frame(observation, frames[-1].pictures, frames[-1].frame_step)
