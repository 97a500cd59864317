"""Runs the real command in a subprocess."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cli import answers


def rdtl(
    *arguments: str, cwd: Path, env: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """``rdtl ARGUMENTS`` in ``cwd``; returns exit code, stdout and stderr.

    With ``--json`` the answer must be what the schema of the command says.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", "launcher", *arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--json" in ours and done.stdout:
        answers.require(ours, done.stdout)
    return done
