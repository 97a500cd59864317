"""A command of a person in the place of a stage: ``python -m jobs.shell RUN STAGE [CMD…]``.

Same image, binds, variables and code snapshot as the stage's own tasks have;
``rdtl shell`` starts it, here or by srun on a node of the cluster.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from jobs import contain
from jobs.node import NodeTask
from jobs.place import Place
from launcher.core import dag_processes, plan
from launcher.core.errors import RdtlError
from launcher.core.runs import RunDir

SHELL = ("bash",)


def main(argv: list[str]) -> int:
    """Run the command (default: bash) and return its exit code."""
    run = RunDir(Path(argv[0]))
    stage = plan.read(run.plan).stage(argv[1])
    stage = replace(stage, argv=tuple(argv[2:]) or SHELL, per="node")
    task = NodeTask(str(run.root), stage.name, 0, run.ledger.current_attempt(stage.name))
    variables = task.variables(run, stage, Place(0, 1, "127.0.0.1", 0), 0)
    for place in (variables, os.environ):  # a person's shell does not end with the task
        place.pop(dag_processes.TASK, None)
    where = stage.working_directory or str(run.root)
    terminal = sys.stdin.isatty()
    tag = f"shell-{os.getpid()}"
    with contain.launch(run, stage, variables, tag, interactive=terminal) as launch:
        child = subprocess.Popen(launch.argv, env=launch.environment, cwd=where)
        # Ctrl-C is for the program inside; this process waits for it.
        own = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            return child.wait()
        finally:
            signal.signal(signal.SIGINT, own)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except RdtlError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
