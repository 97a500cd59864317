"""A program beside a stage's job on its first node, outside the container: uploads.

It learns that the job has ended by the end of its standard input, which comes also when the
node task is killed; it takes no signal for itself. The node task waits for it: a scheduler's
grace is for saving and for bringing out what was saved.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from launcher.core import files, plan
from launcher.core.runs import RunDir


@contextmanager
def running(run: RunDir, stage: plan.Stage, node: int) -> Iterator[None]:
    """The program of ``stage.beside`` while the block runs, and until it has finished after it."""
    if not stage.beside or node != 0:
        yield
        return
    log_path = run.root / "logs" / "upload.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(run.code), "PYTHONSAFEPATH": "1"}
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", *stage.beside],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=run.root,
        )
    assert process.stdin is not None
    try:
        yield
    finally:
        process.stdin.close()
        if code := process.wait():
            _note(run, code)


def _note(run: RunDir, code: int) -> None:
    """Note that it has failed, for whoever looks at the run, unless it did so itself."""
    with suppress(OSError):
        try:
            noted = files.read_json(run.upload_state)["error"]
        except (FileNotFoundError, ValueError):
            noted = None
        if noted is None:
            uri = files.read_json(run.plan)["config"]["upload"]["uri"]
            what = f"the program that uploads ended with exit status {code}"
            state = {"at": time.time(), "behind": [], "error": {"what": what}, "uri": uri}
            files.write_json(run.upload_state, state)
