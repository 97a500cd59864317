"""Other ranks that are gone, told from all else that a RuntimeError may mean (RDTL-S059).

Whoever is left learns of it in the middle of an exchange. The cause is elsewhere: the other
rank says it, or its node is dead and then nobody does (jobs.requeue decides).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from launcher.core.errors import LostError

SIGNS = re.compile(
    r"Connection (?:reset|closed|refused) by peer|Broken pipe|Socket closed"  # gloo, the store
    r"|[Tt]imed out (?:waiting|after)|ncclRemoteError|remote process exited"
)


@contextmanager
def named() -> Iterator[None]:
    """Inside, an exchange that fails because others are gone raises LostError RDTL-S059."""
    try:
        yield
    except RuntimeError as error:
        if not SIGNS.search(str(error)):
            raise
        raise LostError(
            "RDTL-S059",
            "the connection to other ranks is lost",
            where=" ".join(str(error).split())[:300],
            why="a rank has ended, or its node or network is down; every complete checkpoint is "
            "kept",
            fix="look at the logs of the other nodes; the same command then continues",
        ) from error
