"""One lock for everything that starts or stops a cluster.

Short-lived commands (``ip``, ``sinfo``, the database's installer) inherit it: when
the program that started one is killed, the next program waits for the orphan
instead of working on the same things beside it. Daemons do not inherit it.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = Path("/run/rdtl-minislurm.lock")  # one for all clusters: they also share the free networks
_held: list[int] = []  # descriptors of the locks that this program holds now


@contextmanager
def exclusive() -> Iterator[None]:
    """Wait for the lock and hold it; a holder that is killed frees it."""
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another minislurm ({LOCK}) …", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        _held.append(descriptor)
        yield
    finally:
        if descriptor in _held:
            _held.remove(descriptor)
        os.close(descriptor)


def command(
    argv: list[str], env: dict[str, str] | None = None, seconds: float = 20
) -> subprocess.CompletedProcess[str]:
    """Run a short-lived command that keeps the lock; status 124 when it needs too long."""
    try:
        return subprocess.run(
            argv,
            env=env,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            pass_fds=_held,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, "", f"no answer in {seconds:g} s")
