"""vla-eval's side of `benchmarks.vla_eval_ratio`: its own program in its own environment.

``python benchmarks/vla_eval_side.py ACTIONS.npz RESULTS_FOLDER``: one episode for each array of
actions (T, 7), the array "3" from initial state 3. Nothing of ours is imported. Without an image
in its configuration vla-eval runs where it is; ``render: cpu`` is its way to OSMesa.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np
from vla_eval import api
from vla_eval.model_servers.predict import PredictModelServer
from vla_eval.runners import sync_runner

CHUNK = 16
STILL = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)


class Scripted(PredictModelServer):
    """Answers with the given actions of an episode's initial state, CHUNK at a time."""

    def __init__(self, actions: dict[str, np.ndarray]) -> None:
        super().__init__(chunk_size=CHUNK)
        self._actions = actions
        self._state = ""

    async def on_episode_start(self, config: dict[str, Any], ctx: Any) -> None:
        """Note the initial state."""
        self._state = str(config["task"]["episode_idx"])
        await super().on_episode_start(config, ctx)

    def predict(self, obs: Any, ctx: Any) -> dict[str, np.ndarray]:
        """The next CHUNK actions."""
        rest = self._actions[self._state][ctx.step : ctx.step + CHUNK]
        return {"actions": np.concatenate([rest, np.repeat(STILL[None], CHUNK - len(rest), 0)])}

    def get_observation_params(self) -> dict[str, Any]:
        """Both pictures and the robot's state, as a VLA takes them."""
        return {"send_wrist_image": True, "send_state": True}

    def get_action_spec(self) -> dict[str, Any]:
        """Nothing to compare."""
        return {}

    get_observation_spec = get_action_spec


def main(source: str, folder: str) -> None:
    """Print CPU and wall seconds at the end of each episode, with its outcome."""
    with np.load(source) as arrays:
        actions = dict(arrays)
    ends: list[dict[str, Any]] = []
    run_episode = sync_runner.SyncEpisodeRunner.run_episode

    async def timed(*args: Any, **kwargs: Any) -> Any:
        result = await run_episode(*args, **kwargs)
        ends.append(
            {
                "cpu_s": time.process_time(),
                "wall_s": time.perf_counter(),
                "steps": result["steps"],
                "success": bool(result["metrics"]["success"]),
            }
        )
        return result

    sync_runner.SyncEpisodeRunner.run_episode = timed  # type: ignore[method-assign]
    benchmark = {
        "benchmark": "vla_eval.benchmarks.libero.benchmark:LIBEROBenchmark",
        "subname": "libero_object",
        "episodes_per_task": len(actions),
        "max_tasks": 1,
        "params": {"suite": "libero_object", "seed": 7},
    }
    config = {"output_dir": folder, "render": "cpu", "benchmarks": [benchmark]}
    api.evaluate(Scripted(actions), config)
    sys.stdout.flush()
    print(json.dumps(ends))


if __name__ == "__main__":
    os.environ.update(MUJOCO_GL="osmesa", PYOPENGL_PLATFORM="osmesa")
    main(*sys.argv[1:])
