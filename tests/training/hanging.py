"""``python -m tests.training.hanging RUN``: the training job, but on the last rank reading
its fourth batch never comes back, as from a file system that hangs."""

from __future__ import annotations

import os
import time
from typing import Any

from jobs import train
from launcher.core.job import run_job
from rdt.data.loader import Loader

NEXT = Loader.__next__


def hang(loader: Loader) -> Any:
    """Read three batches, then wait for ever."""
    last = os.environ["RANK"] == str(int(os.environ["WORLD_SIZE"]) - 1)
    while last and loader.taken >= 3 * loader._sampler.effective_batch:
        time.sleep(0.1)
    return NEXT(loader)


if __name__ == "__main__":
    Loader.__next__ = hang  # type: ignore[method-assign]
    run_job(train.body)
