"""Small grey portraits of LIBERO's scenes, by which pictures of a data set are known.

``python -m rdt.sim.portraits`` draws those that ``rdt/data/portraits.npz`` lacks with the
installed simulator (three CPU minutes for all); :mod:`rdt.data.orientation` compares pictures
with them.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rdt.data.orientation import PORTRAITS, shrunk
from rdt.sim.libero import Simulator
from rdt.sim.tasks import find_task, task_ids

TASKS = {"libero_object": range(10), "libero_spatial": (0, 4, 9), "libero_goal": (0,)}
"""Tasks of the suites with one scene: where they place objects differently, several."""
SCENE = re.compile(r"[A-Z_]+SCENE\d+")
TASK = {"wide_mm": 0, "camera_size": 128, "settle_steps": 10, "max_steps": 1, "env_seed": 7}


def chosen() -> dict[str, tuple[str, int]]:
    """Suite and number of the task that sits for each portrait, by the portrait's name.

    Of the scenes of libero_90, which are those of libero_10, the first task.
    """
    found = {f"{suite} {number}": (suite, number) for suite, own in TASKS.items() for number in own}
    for number in task_ids("libero_90"):
        scene = SCENE.match(find_task("libero_90", number).name)
        if scene:
            found.setdefault(scene[0], ("libero_90", number))
    return found


def portrait(suite: str, number: int) -> NDArray[np.uint8]:
    """What the agent's camera sees of initial state 0 after settling, raw, small and grey."""
    simulator = Simulator({**TASK, "suite": suite, "task_id": number}, blind=False)
    simulator.reset(0)
    picture = simulator.observation().pictures["agentview"]
    simulator.close()
    return shrunk(picture[None])[0].round().astype(np.uint8)


def main(path: Path = PORTRAITS) -> None:
    """Draw what is missing."""
    drawn: dict[str, NDArray[np.uint8]] = {}
    if path.exists():
        with np.load(path) as stored:
            drawn = {name: stored[name] for name in stored.files}
    for name, task in chosen().items():
        if name not in drawn:
            drawn[name] = portrait(*task)
            np.savez_compressed(path, **drawn)
            print(name, flush=True)


if __name__ == "__main__":
    main()
