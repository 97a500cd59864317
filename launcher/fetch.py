"""The results of a run, copied whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from launcher.core.errors import UsageError
from launcher.core.runs import RunDir

RESULTS = ("report", "records", "policy")
WHAT_RAN = ("run.yaml", "lock.json", "plan.json")


def fetch(run: RunDir, destination: Path) -> list[str]:
    """Copy report, records, policy and what says how they were made to ``destination``.

    Names of what was copied. The copy gets its name last, so a destination that exists is
    complete. Raises UsageError RDTL-U025 when it exists or there is nothing yet.
    """
    if destination.exists():
        raise UsageError(
            "RDTL-U025",
            "the destination exists",
            where=str(destination),
            why="results of two runs would be mixed",
            fix="name a directory that does not exist yet",
        )
    present = [name for name in RESULTS if (run.root / name).is_dir()]
    if not present:
        raise UsageError(
            "RDTL-U025",
            "this run has no results yet",
            where=f"none of {', '.join(RESULTS)} in {run.root}",
            fix=f"rdtl runs show {run.root.name} says how far it is",
        )
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        for name in present:
            ignored = shutil.ignore_patterns(".*.part")  # somebody is writing them right now
            shutil.copytree(run.root / name, temporary / name, ignore=ignored)
        for name in WHAT_RAN:
            shutil.copy2(run.root / name, temporary / name)
        temporary.rename(destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [*present, *WHAT_RAN]
