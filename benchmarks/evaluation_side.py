"""One side of the evaluation benchmark.

``python -m benchmarks.evaluation_side SIDE SUITE TASK N STEPS`` runs N episodes of STEPS steps
with given actions and prints one JSON line: seconds of each episode with its reset, and a digest
of all that a policy would have been shown and of the end.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdt.policy.policy import Observation
from rdt.sim import backend
from rdt.sim.episode import run_episode
from rdt.sim.libero import SENSORS, Simulator
from rdt.spec.protocol import SETTLE_ACTION
from rdt.spec.record import EpisodeKey

HORIZON, SIZE, SEED, SETTLE = 16, 128, 7, 10
LONGEST = 520
NUMBERS = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos", "robot0_joint_pos")


def actions() -> NDArray[np.float32]:
    """(LONGEST, 7): slow waves, within reach, the gripper to and fro."""
    time_s = np.arange(LONGEST)[:, None] / 20
    waves = 0.4 * np.sin(time_s * np.arange(1, 8) * 0.7)
    waves[:, 6] = np.sign(waves[:, 6])
    return waves.astype(np.float32)


class Waves:
    """A policy that costs nothing, sees two moments and keeps a digest of what it is shown."""

    sees = sees_previous = True

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def begin(self, simulator: Simulator, key: EpisodeKey) -> None:
        """Nothing to prepare."""

    def chunk(self, observation: Observation, query: int) -> NDArray[np.float32]:
        """The next HORIZON actions."""
        for seen in (
            (observation.previous or {}, observation.pictures) if query else (observation.pictures,)
        ):
            for name in SENSORS:
                self.digest.update(seen[name].tobytes())
        for number in ("eef_pos", "eef_quat", "gripper_qpos", "joint_pos"):
            self.digest.update(getattr(observation, number).tobytes())
        return actions()[query * HORIZON : (query + 1) * HORIZON]


Episodes = Iterator[tuple[float, float, str]]
"""CPU seconds, wall seconds and digest of each."""


def lazily(suite: str, task_id: int, count: int, steps: int) -> Episodes:
    """Episodes of our harness."""
    task = {"suite": suite, "task_id": task_id, "wide_mm": 0, "camera_size": SIZE}
    task |= {"settle_steps": SETTLE, "max_steps": steps, "env_seed": SEED}
    simulator = Simulator(task, blind=False)
    for state in range(count):
        policy, began, at = Waves(), time.process_time(), time.perf_counter()
        outcome = run_episode(simulator, policy, EpisodeKey("waves", suite, task_id, state, 0), 16)
        assert len(outcome.actions) == steps, "the waves solved the task"
        spent, took = time.process_time() - began, time.perf_counter() - at
        policy.digest.update(simulator.state().tobytes())
        yield spent, took, policy.digest.hexdigest()
    simulator.close()


def eagerly(suite: str, task_id: int, count: int, steps: int) -> Episodes:
    """Episodes of LIBERO's own environment, which renders both cameras at every step."""
    from libero.libero.envs import OffScreenRenderEnv

    from rdt.sim.tasks import find_task

    info = find_task(suite, task_id)
    env = OffScreenRenderEnv(
        bddl_file_name=str(info.bddl), camera_heights=SIZE, camera_widths=SIZE, ignore_done=True
    )
    for state in range(count):
        digest, began, at = hashlib.sha256(), time.process_time(), time.perf_counter()
        env.env.object_property_initializers.clear()
        env.seed(SEED)
        env.reset()
        env.sim.data._data.qacc_warmstart[:] = 0
        env.set_init_state(info.init_states[state])
        for _ in range(SETTLE):
            seen = env.step(np.asarray(SETTLE_ACTION))[0]
        frames = [seen]
        for action in actions()[:steps]:
            frames.append(env.step(action.astype(np.float64))[0])
        spent, took = time.process_time() - began, time.perf_counter() - at
        for query in range(0, steps, HORIZON):
            _show(digest, frames, query)
        digest.update(np.asarray(env.get_sim_state(), np.float64).tobytes())
        yield spent, took, digest.hexdigest()
    env.close()


def _show(digest: Any, frames: list[dict[str, NDArray[Any]]], step: int) -> None:
    for frame in frames[step - 1 : step + 1] if step else frames[:1]:
        for sensor in SENSORS.values():
            digest.update(frame[f"{sensor}_image"].tobytes())
    for number in NUMBERS:
        digest.update(frames[step][number].tobytes())


def main(side: str, *arguments: str) -> None:
    """Print what the episodes cost and showed."""
    backend.prepare()
    run = {"ours": lazily, "eager": eagerly}[side]
    suite, *numbers = arguments
    with backend.quiet():
        cpu, wall, digests = zip(*run(suite, *map(int, numbers)), strict=True)
    print(json.dumps({"cpu_s": cpu, "wall_s": wall, "digests": digests}))


if __name__ == "__main__":
    main(*sys.argv[1:])
