"""How far a transfer is: files, bytes, seconds left; for people and for programs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from launcher.core.manifest import File
from launcher.staging.store import StoreEntry

WINDOW = 20
"""Ticks (about seconds) that the speed is measured over."""


@dataclass
class Progress:
    """Counts of one transfer. Bytes include what is on its way, files only what is proven."""

    total_files: int
    total_bytes: int
    show: Callable[[Progress], None]
    files: int = 0
    bytes: int = 0
    _proven_bytes: int = 0
    _base: int = 0
    _ticks: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=WINDOW))

    @classmethod
    def of(cls, entries: Iterable[StoreEntry], show: Callable[[Progress], None]) -> Progress:
        """Nothing done yet."""
        sizes = [entry.size for entry in entries]
        return cls(len(sizes), sum(sizes), show)

    def restart(self, entries: Iterable[StoreEntry], proven: dict[str, File]) -> None:
        """The goal has changed."""
        sizes = [entry.size for entry in entries]
        self.total_files, self.total_bytes = len(sizes), sum(sizes)
        self.files = len(proven)
        self._proven_bytes = sum(file.size for file in proven.values())

    def proven(self, file: File) -> None:
        """One more file is whole and right."""
        self.files += 1
        self._proven_bytes += file.size
        self._tick(max(self.bytes, self._proven_bytes))

    def moved(self, count: int) -> None:
        """The engine has moved ``count`` bytes in its present call."""
        if not count:
            self._base = self._proven_bytes
        self._tick(self._base + count)

    @property
    def speed(self) -> float:
        """Bytes a second of late, 0 at first."""
        if len(self._ticks) < 2:
            return 0.0
        (t0, b0), (t1, b1) = self._ticks[0], self._ticks[-1]
        return max(0.0, (b1 - b0) / (t1 - t0)) if t1 > t0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds left at that speed, None while nobody can say."""
        return (self.total_bytes - self.bytes) / self.speed if self.speed else None

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "files": self.files,
            "total_files": self.total_files,
            "bytes": self.bytes,
            "total_bytes": self.total_bytes,
            "bytes_per_second": round(self.speed),
            "eta_seconds": None if self.eta is None else round(self.eta, 1),
        }

    def __str__(self) -> str:
        eta = "" if self.eta is None else f", {spoken(self.eta)} left"
        return (
            f"{self.files}/{self.total_files} files, {self.bytes / 1e6:.1f} of "
            f"{self.total_bytes / 1e6:.1f} MB, {self.speed / 1e6:.1f} MB/s{eta}"
        )

    def _tick(self, count: int) -> None:
        self.bytes = min(count, self.total_bytes)
        now = time.monotonic()
        if self._ticks and now - self._ticks[-1][0] < 0.5 and self.files < self.total_files:
            return
        self._ticks.append((now, self.bytes))
        self.show(self)


def spoken(seconds: float) -> str:
    """A duration as people say it: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
