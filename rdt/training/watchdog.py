"""Ends a rank that makes no more steps, and says where it stands (RDTL-T025).

A hung file system or a lost peer raises nothing: the job would pay for its nodes until
the time limit. All ranks stand still when one does, so those that only wait for the others
wait a little longer before they speak: the first to end the job is the one that hangs.
"""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from launcher.core.errors import RdtlError

COLLECTIVE = ("torch/distributed", "deepspeed/comm")
POLITE_S = 10.0
"""How much longer a rank waits that stands in an exchange with the others."""
OURS = Path(__file__).parents[2]


class Watchdog:
    """Calls ``end`` with an RdtlError when ``limit_s`` pass without :meth:`beat`."""

    def __init__(self, limit_s: float, rank: int, end: Callable[[RdtlError], object]) -> None:
        self._limit, self._rank, self._end = limit_s, rank, end
        self._main = threading.get_ident()
        self._last: tuple[float, int] | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def beat(self, step: int) -> None:
        """``step`` is done: the next one is expected within the limit."""
        self._last = time.monotonic(), step

    def rest(self) -> None:
        """What follows may take as long as it likes: writing has its own limits."""
        self._last = None

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self._limit / 4)):
            last = self._last
            if last is None:
                continue
            late = time.monotonic() - last[0] - self._limit
            frames = traceback.extract_stack(sys._current_frames()[self._main])
            waits = any(part in frame.filename for frame in frames for part in COLLECTIVE)
            if late > (POLITE_S if waits else 0):
                faulthandler.dump_traceback(all_threads=True)
                self._end(stalled(self._rank, last[1], self._limit, frames, waits))
                return


def stalled(
    rank: int, step: int, limit_s: float, frames: traceback.StackSummary, waits: bool
) -> RdtlError:
    """The error of a rank that stands still behind ``step`` with this stack."""
    mine = [frame for frame in frames if frame.filename.startswith(str(OURS))] or frames
    place = f"{mine[-1].filename}:{mine[-1].lineno} in {mine[-1].name}"
    deepest = f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}"
    return RdtlError(
        "RDTL-T025",
        f"no step for {limit_s / 60:.3g} minutes after step {step}",
        where=f"rank {rank} stands at {place} (innermost: {deepest}); the log has the stacks "
        "of all its threads",
        why="it waits for another rank or its network"
        if waits
        else "it does not come back from there: data on a file system that hangs, or a device",
        fix="run the same command again: it continues from the newest checkpoint; if steps are "
        "really that slow, raise train.stall_minutes",
    )
