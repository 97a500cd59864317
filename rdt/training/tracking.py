"""Weights & Biases, which training never waits for.

A thread speaks to it; what it cannot take in time is dropped and counted. The record on
disk is whole in any case, and an offline or broken run can be sent later from it.
"""

from __future__ import annotations

import queue
import sys
import threading
from typing import Any

from launcher.core.job import Job

WAITING_LINES = 10_000
CLOSE_S = 30.0
"""How long the end of a training waits for what is still to be sent."""


class Tracker:
    """Lines on their way to Weights & Biases; of rank 0 only."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue(WAITING_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._send, name="wandb", daemon=True)
        self._thread.start()

    def log(self, line: dict[str, Any]) -> None:
        """Hand over a line with its ``step``; returns at once."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Let the rest be sent, for half a minute at most."""
        if not self._lines.full():
            self._lines.put_nowait(None)
        self._thread.join(CLOSE_S)
        if self._thread.is_alive() or self._dropped:
            left = self._lines.qsize() + self._dropped
            _warn(f"{left} lines did not get there in time")

    def _send(self) -> None:
        """The thread. Whatever goes wrong in there is said once and costs nothing but the lines."""
        try:
            run = self._begin()
            while (line := self._lines.get()) is not None:
                run.log(line, step=line["step"])
            run.finish()
        except Exception as error:
            _warn(f"{type(error).__name__}: {error}")
            while self._lines.get() is not None:  # so that nothing counts as waiting
                continue

    def _begin(self) -> Any:
        import wandb  # half a second, and only some runs want it

        job, train = self._job, self._job.config["train"]
        # The key comes from the environment (WANDB_API_KEY) or netrc and is never read here.
        return wandb.init(
            project=train["wandb_project"],
            entity=train["wandb_entity"],
            name=job.config["name"],
            id=job.run.root.name,
            resume="allow",
            mode=train["wandb"],
            dir=job.run.checkpoints,
            config=job.config,
            settings=wandb.Settings(console="off", silent=True),
        )


def _warn(what: str) -> None:
    print(
        f"warning RDTL-W006: Weights & Biases: {what}; training goes on, and "
        "checkpoints/metrics.jsonl has every line",
        file=sys.stderr,
        flush=True,
    )
