"""A transfer in which nothing moves is ended: a server may take a request and never answer it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Any

COUNTS = ("bytes", "checks", "transfers")
"""What grows in rclone's statistics as long as anything moves."""


class Silence:
    """Kills a process in which nothing has moved for some seconds, while the block runs."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self.said: list[str] = []
        """Why the process was killed; [] when it was not."""
        self._process = process
        self._seconds = seconds
        self._counts: list[Any] = []
        self._since = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Silence:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def seen(self, stats: Mapping[str, Any]) -> None:
        """Statistics of rclone, as they come."""
        counts = [stats.get(name) for name in COUNTS]
        if counts != self._counts:
            self._counts, self._since = counts, time.monotonic()

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, self._seconds)):
            if time.monotonic() - self._since > self._seconds:
                self.said.append(f"nothing moved for {self._seconds:.0f} s: i/o timeout")
                self._process.kill()
                return
