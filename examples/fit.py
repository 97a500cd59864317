"""A training script of your own that `rdtl run` starts, warns, starts again and continues.

    rdtl run --name fit -- python3 examples/fit.py
    rdtl run --name fit --site mycluster --nodes 2 --gpus 8 --per gpu -- python3 examples/fit.py

It needs nothing of RDT Launcher. What it takes from it are variables of the environment
(RDTL_RUN_DIR; RANK and WORLD_SIZE with `--per gpu`); what it gives are two exit statuses:
85 "I have saved, start me again" after SIGUSR2, 86 "I have saved, leave me" after SIGTERM.
Your own script would fit a network; this one fits a line, so that it takes a second.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

SAVED_START_AGAIN, SAVED_LEAVE_ME = 85, 86


def save(path: Path, state: dict[str, float]) -> None:
    """Whole or not at all: a name appears when its contents are complete."""
    half = path.with_suffix(".part")
    half.write_text(json.dumps(state))
    half.replace(path)


def main() -> int:
    """Gradient descent on y = 2 x + 1; the numbers are the same however often it is interrupted."""
    options = argparse.ArgumentParser()
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--pause", type=float, default=0.0, help="seconds a step, to have time")
    given = options.parse_args()
    told: list[int] = []
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: told.append(number))
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    saved = Path(os.environ.get("RDTL_RUN_DIR", ".")) / f"fit-{rank}.json"
    state = json.loads(saved.read_text()) if saved.exists() else {"step": 0, "a": 0.0, "b": 0.0}
    print(f"rank {rank} of {ranks}: from step {state['step']}", flush=True)
    while state["step"] < given.steps:
        x = (state["step"] * ranks + rank) % 10 / 10
        wrong = state["a"] * x + state["b"] - (2 * x + 1)
        state = {
            "step": state["step"] + 1,
            "a": state["a"] - 0.5 * wrong * x,
            "b": state["b"] - 0.5 * wrong,
        }
        if told:
            save(saved, state)
            return SAVED_LEAVE_ME if signal.SIGTERM in told else SAVED_START_AGAIN
        time.sleep(given.pause)
    save(saved, state)
    print(f"step={state['step']} a={state['a']:.3f} b={state['b']:.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
