"""Our side of `benchmarks.vla_eval_ratio`.

``python -m benchmarks.vla_eval_ours ACTIONS.npz N RUN``.

Finds the actions with which the expert solves initial states 0 … N-1, writes them, serves them
as a policy in a thread of this process and evaluates that policy as a task of an array does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import evaluation_job
from benchmarks.evaluation_job import CHUNK
from launcher.schema import Task
from rdt.policy.references import STILL, Expert
from rdt.serve import exact
from rdt.sim import backend
from rdt.sim.episode import run_episode
from rdt.sim.libero import Simulator
from rdt.spec.record import EpisodeKey
from tests.serve import servers


def solve(count: int) -> dict[str, np.ndarray]:
    """Actions (T, 7) of the expert by initial state."""
    task = Task(camera_size=256).model_dump(mode="json")
    simulator, found = Simulator(task, blind=True), {}
    for state in range(count):
        key = EpisodeKey("expert", task["suite"], task["task_id"], state, 0)
        outcome = run_episode(simulator, Expert(), key, 1)
        assert outcome.success, f"the expert failed from initial state {state}"
        found[str(state)] = outcome.actions
    simulator.close()
    return found


def answers(actions: dict[str, np.ndarray]) -> Any:
    """The policy: what an episode's next CHUNK actions are."""

    def answer(message: dict[str, Any]) -> dict[str, Any]:
        state = message["episode"].split("-i")[1].split("-")[0]
        begin = CHUNK * message["query"]
        rest = actions[state][begin : begin + CHUNK]
        return {"actions": np.concatenate([rest, np.repeat(STILL[None], CHUNK - len(rest), 0)])}

    return answer


def main(target: str, count: str, folder: str) -> None:
    """Print the ends of the episodes."""
    backend.prepare()
    actions = solve(int(count))
    np.savez(target, **actions)  # type: ignore[arg-type]
    declared = {"protocol": exact.PROTOCOL, "sees_previous": True, "action_horizon": CHUNK}
    with servers.foreign(answers(actions), declared) as (uri, _):
        asked: dict[str, Any] = {
            "policies": ["server"],
            "server": uri,
            "suites": {"libero_object": [0]},
        }
        states = (0, int(count))
        ends = evaluation_job.run(Path(folder), {"camera_size": 256}, init_states=states, **asked)
    print(json.dumps(ends))


if __name__ == "__main__":
    main(*sys.argv[1:])
