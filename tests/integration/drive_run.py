"""``python -m tests.integration.drive_run RUN SITE.yaml [KILL]``: a launcher that may be killed.

Drives the plan of RUN on the site, as ``rdtl`` does. KILL is ``before:N``, ``after:N``
(the N-th event that this process publishes) or ``sbatch:N`` (right after the N-th sbatch
returned, when nobody has recorded its job id yet): there the process ends by SIGKILL.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from launcher.core import plan
from launcher.core.runs import Ledger, RunDir
from launcher.drive import drive
from launcher.sites import Site
from launcher.submit.adapter import PartExecutor
from launcher.submit.slurm import SlurmBackend


def die_at(moment: str) -> None:
    """Patch this process so that it kills itself at ``moment``."""
    kind, number = moment.split(":")
    owner, name = (PartExecutor, "send") if kind == "sbatch" else (Ledger, "publish")
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def patched(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if kind == "before" and calls == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **named)
        if kind != "before" and calls == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, patched)


def main(run_dir: str, site_file: str, moment: str = "") -> None:
    """Drive the run to its end, or to the moment of the kill."""
    if moment:
        die_at(moment)
    run = RunDir(Path(run_dir))
    site = Site(**yaml.safe_load(Path(site_file).read_text()))
    backend = SlurmBackend(run, site, lambda text: print(text, file=sys.stderr, flush=True))
    backend.poll_s = 0.3  # tests are in a hurry; what it costs the controller stays as it is
    drive(run, plan.read(run.plan), backend, lambda views: None)


if __name__ == "__main__":
    main(*sys.argv[1:])
