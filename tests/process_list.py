"""What everybody on this machine can read of every process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def watched(pause_s: float = 0.01) -> Iterator[set[str]]:
    """The command lines that the process list shows while the block runs."""
    seen: set[str] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(pause_s):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):  # it has just ended
                    seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()
