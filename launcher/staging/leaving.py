"""Who asks for an asset, and who removes it, without a lock between them.

A cleaner leaves its mark and then looks for references; a user writes its reference and then looks
for marks. One of the two always sees the other: the cleaner lets the asset stay, or the user waits
until the cleaner has decided. So nothing that somebody was given disappears, not even for a moment.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 10.0
"""Seconds for which marks are waited for: looking takes milliseconds, unless the cleaner died."""


@contextmanager
def marked(asset: Path) -> Iterator[None]:
    """A cleaner looks whether this asset may go, and removes it meanwhile or lets it be.

    Raises FileNotFoundError when it has gone.
    """
    mark = asset / f"leaving.{uuid.uuid4().hex}"
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def decided(asset: Path) -> None:
    """Return when no cleaner is deciding about this asset; a dead one's mark is removed."""
    until = time.monotonic() + PATIENCE
    while marks := _marks(asset):
        if time.monotonic() > until:
            for mark in marks:
                mark.unlink(missing_ok=True)
            return
        time.sleep(0.005)


def _marks(asset: Path) -> list[Path]:
    try:
        return list(asset.glob("leaving.*"))
    except FileNotFoundError:  # it went in this moment
        return []
