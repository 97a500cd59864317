"""Episodes of the demo's policy with one mistake.

``python -m benchmarks.zero_side NAME POLICY OUT [N]`` appends a line of JSON for each of the first
N episodes (all 20) to OUT/NAME.jsonl and leaves out those that are there. The mistake is made
around the policy, where a wrapper, a server or a card of somebody else's would make it; the
simulator, the noise and the initial states are those without it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdt.policy.policy import Observation, Policy
from rdt.policy.references import Expert
from rdt.sim import backend
from rdt.sim.episode import run_episode
from rdt.sim.libero import Simulator
from rdt.spec.record import EpisodeKey

TASK = {
    "suite": "libero_object",
    "task_id": 0,
    "wide_mm": 0,
    "camera_size": 128,
    "settle_steps": 10,
    "max_steps": None,
    "env_seed": 7,
}
STATES, EXECUTED, CHUNK = range(30, 50), 8, 16
METRES = 0.05
Picture = NDArray[np.uint8]
Actions = NDArray[np.float32]


@dataclass(frozen=True)
class Mistake:
    """``see`` changes pictures, ``act`` actions, ``load`` makes the policy from its folder."""

    see: Callable[[Picture], Picture] = lambda picture: picture
    act: Callable[[Actions], Actions] = lambda actions: actions
    load: Callable[[str], Policy] | None = None
    executed: int = EXECUTED
    task: dict[str, Any] = field(default_factory=dict)
    mujoco: str = "3.3.2"


class Spoiled:
    """A policy with a mistake around it."""

    def __init__(self, policy: Policy, mistake: Mistake) -> None:
        self.sees, self.sees_previous = policy.sees, policy.sees_previous
        self._policy, self._mistake = policy, mistake

    def begin(self, simulator: Simulator, key: EpisodeKey) -> None:
        """As the policy."""
        self._policy.begin(simulator, key)

    def chunk(self, observation: Observation, query: int) -> Actions:
        """The policy's answer to what it is wrongly shown, wrongly executed."""
        see = self._mistake.see
        shown = {name: see(picture) for name, picture in observation.pictures.items()}
        return self._mistake.act(self._policy.chunk(replace(observation, pictures=shown), query))


def network(folder: str, statistics: bool = True, contract: bool = True) -> Policy:
    """The trained policy; with another set's statistics, or read under another contract."""
    import torch

    from rdt import checkpoint
    from rdt.policy.loading import Settings, assemble
    from rdt.spec.contract import LIBERO_EEF6D, LIBERO_VELOCITY

    torch.set_num_threads(1)
    loaded = checkpoint.load(folder)
    card, under = loaded.card, LIBERO_VELOCITY
    assert card is not None
    if not statistics:
        mean, std = other_statistics()
        card = replace(card, state_mean=mean, state_std=std)
    if not contract:
        under = replace(LIBERO_EEF6D, cameras=LIBERO_VELOCITY.cameras)
    return assemble(loaded.network, card, under, 0, Settings())


def other_statistics() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and spread of the states of three demonstrations of libero_spatial, task 0."""
    from rdt.data import rotations, unified
    from rdt.sim.expert import expert
    from rdt.spec.contract import LIBERO_VELOCITY

    simulator = Simulator({**TASK, "suite": "libero_spatial"}, blind=True)
    states = []
    for number in range(3):
        simulator.reset(number)
        for action in expert(simulator):
            felt = simulator.observation()
            angles = rotations.quat_to_axis_angle(felt.eef_quat)
            robot = unified.RobotState(felt.eef_pos, angles, felt.gripper_qpos, felt.joint_pos)
            states.append(unified.encode_state(robot, LIBERO_VELOCITY))
            if simulator.step(action):
                break
    simulator.close()
    rows = np.stack(states)
    return tuple(rows.mean(axis=0).tolist()), tuple(rows.std(axis=0).tolist())


def _metres(actions: Actions) -> Actions:
    return actions * np.array([METRES] * 3 + [1] * 4, np.float32)


def _gripper(actions: Actions) -> Actions:
    return actions * np.array([1] * 6 + [-1], np.float32)


SPATIAL: dict[str, Any] = {"suite": "libero_spatial", "task_id": 5}
MISTAKES = {
    "none": Mistake(),
    "whole chunk": Mistake(executed=CHUNK),
    "reversed gripper": Mistake(act=_gripper),
    "mirrored pictures": Mistake(see=lambda picture: picture[:, ::-1].copy()),
    "turned pictures": Mistake(see=lambda picture: picture[::-1, ::-1].copy()),
    "metres": Mistake(act=_metres),
    "other statistics": Mistake(load=lambda folder: network(folder, statistics=False)),
    "other contract": Mistake(load=lambda folder: network(folder, contract=False)),
    "no settling": Mistake(task={"settle_steps": 0}),
    "mujoco 3.17": Mistake(mujoco="3.17.0"),
    "expert, ramekin": Mistake(load=lambda folder: Expert(), task=SPATIAL),
    "expert, ramekin, mujoco 3.17": Mistake(
        load=lambda folder: Expert(), task=SPATIAL, mujoco="3.17.0"
    ),
    "trained again": Mistake(),
    "off-by-one observations": Mistake(),
    "dropped tail": Mistake(),
    "warm-up 0.1 %": Mistake(),
}
"""The last four are other trainings; their policy is another one."""


def main(name: str, policy_folder: str, out: str, count: str = "20") -> None:
    """Run what is missing."""
    mistake = MISTAKES[name]
    backend.REQUIRED["mujoco"] = mistake.mujoco  # what rdtl refuses is what is measured here
    path = Path(out) / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    there = {json.loads(line)["init_state"] for line in lines}
    missing = [state for state in STATES[: int(count)] if state not in there]
    if not missing:
        return
    policy = Spoiled((mistake.load or network)(policy_folder), mistake)
    task = {**TASK, **mistake.task}
    simulator = Simulator(task, blind=not policy.sees)
    for state in missing:
        key = EpisodeKey("rdt", task["suite"], task["task_id"], state, 0)
        outcome = run_episode(simulator, policy, key, mistake.executed)
        line = {
            "init_state": state,
            "success": outcome.success,
            "steps": len(outcome.actions),
            "actions_sha256": outcome.actions_sha256,
        }
        with path.open("a") as handle:
            handle.write(json.dumps(line) + "\n")
        print(name, line, flush=True)
    simulator.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
