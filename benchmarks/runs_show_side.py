"""Baseline of benchmarks/runs_show.py: ``python -m benchmarks.runs_show_side RUN TASKS``."""

from __future__ import annotations

import sys
from pathlib import Path

from launcher.core.runs import RunDir


def done(run: RunDir, tasks: int) -> int:
    """Tasks of stage ``work`` that ended well, by one question to the ledger for each."""
    return sum(run.ledger.exit_codes("work", index, 1) == {0: 0} for index in range(tasks))


if __name__ == "__main__":
    print(done(RunDir(Path(sys.argv[1])), int(sys.argv[2])))
