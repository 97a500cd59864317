"""Wall seconds to start a program in a SIF as an ordinary user, against bare ``apptainer exec``.

The bar is 0.6 s, warm: the image file is in the page cache. Ours is what a node
task starts: clean environment, private home and /tmp, own process namespace.
The anchor for the baseline is 0.13 s. Needs root (to make the user) and the
base archive of ``python -m tests.images.engine up``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks import harness
from tests.images import ordinary_user, small, ways
from tests.images.ways import Way

LIMIT = 0.6
ANCHOR = 0.13
ROUNDS = 5
PROGRAM = ("cat", "/etc/os-release")
Run = Callable[[], subprocess.CompletedProcess[str]]


def seconds(run: Run) -> float:
    """Wall seconds of one start that must succeed."""
    began = time.monotonic()
    run().check_returncode()
    return time.monotonic() - began


def sides(way: Way) -> tuple[Run, Run]:
    """Ours and the baseline: the same program, the same image, the same user."""
    user, container = way.user, way.container
    assert user is not None
    bare = [container.program, "-q", "exec", container.image, *PROGRAM]
    return lambda: way.run(*PROGRAM), lambda: user.run(*bare)


def main() -> None:
    """Measure both in turns."""
    started = time.monotonic()
    if reason := small.unavailable("apptainer") or ordinary_user.unavailable():
        sys.exit(f"not measured: {reason}")
    with ways.open_folder() as folder, ordinary_user.ordinary_user() as user:
        image = small.sif(folder)
        ours, bare = sides(Way(image, ways.facts_of(image.program, user=user), folder, user))
        equal = ours().stdout == bare().stdout != ""  # and both are warm from here on
        a, b = harness.alternate(lambda: seconds(ours), lambda: seconds(bare), ROUNDS)
    mine, theirs = harness.spread(a, "s"), harness.spread(b, "s")
    harness.finish(
        {
            "benchmark": "sif_exec",
            "ours": mine,
            "baseline": {**theirs, "what": "bare apptainer exec"},
            "ratio": round(mine["median"] / theirs["median"], 3),
            "limit": LIMIT,
            "of_limit": round(mine["median"] / LIMIT, 3),
            "calibration": {"interpreter_start_cpu_s": harness.interpreter_start()},
            "baseline_of_anchor": round(statistics.median(b) / ANCHOR, 2),
            "equal": equal,
        },
        [],
        started,
    )


if __name__ == "__main__":
    main()
