"""Locks that only save work: what must not happen twice is decided by renames."""

from __future__ import annotations

import errno
import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

Held = Literal["mine", "busy", "unlockable"]
UNABLE = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What file systems without locks answer."""


@contextmanager
def held(path: Path, say: Callable[[str], None], *, wait: bool = True) -> Iterator[Held]:
    """Hold the lock in ``path``; a holder that is killed frees it.

    Yields "busy", without ``wait``, when somebody else holds it, and "unlockable" on a
    file system without locks: that costs a second transfer, nothing else.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        yield _lock(handle.fileno(), say, wait)


def _lock(descriptor: int, say: Callable[[str], None], wait: bool) -> Held:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            return "busy"
        say("waiting: another process fetches the same")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in UNABLE:
            raise
        return "unlockable"
    return "mine"
