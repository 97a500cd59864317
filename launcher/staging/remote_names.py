"""The names of the remotes that rclone knows here, through rclone-python.

That package builds one string for a shell and executes what a path in it says (decision
0006). This is its one call here: the string is the constant ``rclone listremotes``; where the
program and its configuration lie goes through the environment, which no shell reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.staging import engine


def known() -> list[str]:
    """Names without their colons; [] where rclone cannot read its configuration."""
    from rclone_python import rclone
    from rclone_python.utils import RcloneException

    try:
        with _first_on_path(Path(engine.program()).parent):
            return [name.rstrip(":") for name in rclone.get_remotes()]
    except RcloneException:
        return []


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """The package looks for ``rclone`` on the PATH, where a venv's programs often are not."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before
