"""What a step may try by itself before its next try; nothing of it changes results."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from launcher.core.dag import Step
from launcher.core.dag_failures import UNKNOWN
from launcher.core.signatures import Failure

MICRO_BATCH, ACCUMULATION = "RDTL_MICRO_BATCH", "RDTL_ACCUMULATION"
APT_WAIT_S = 600.0


@dataclass(frozen=True)
class Cure:
    """What is done before the next try: variables that change, a lock that is waited for."""

    name: str
    did: str = ""
    changed: Mapping[str, str] = field(default_factory=dict)
    lock: Path | None = None

    def wait(self, stopping: threading.Event) -> None:
        """Until the lock is free; a while at most, then the next try says what is wrong."""
        waited = 0.0
        while self.lock and _held(self.lock) and waited < APT_WAIT_S and not stopping.wait(1.0):
            waited += 1.0


def cure(step: Step, failure: Failure, variables: Mapping[str, str]) -> Cure | None:
    """The remedy of a failure, if there is one and the step allows it. ``variables``: its own."""
    if failure.code in UNKNOWN:
        return Cure("retry")
    if failure.remedy not in step.remedies:
        return None
    if failure.remedy == "halve-micro-batch":
        return _halved(variables)
    if failure.remedy == "wait-apt-lock":
        lock = Path(variables.get("DPKG_ADMINDIR", "/var/lib/dpkg")) / "lock-frontend"
        return Cure("wait-apt-lock", f"waited for {lock}", lock=lock)
    return Cure("retry")


def _halved(variables: Mapping[str, str]) -> Cure | None:
    """Half the micro batch, twice the accumulation: the effective batch stays what it was."""
    try:
        micro, accumulation = int(variables[MICRO_BATCH]), int(variables[ACCUMULATION])
    except (KeyError, ValueError):
        return None
    if micro < 2 or micro % 2:
        return None
    changed = {MICRO_BATCH: str(micro // 2), ACCUMULATION: str(accumulation * 2)}
    did = f"micro batch {micro} to {micro // 2}, accumulation {accumulation} to {accumulation * 2}"
    return Cure("halve-micro-batch", did, changed)


def _held(lock: Path) -> bool:
    """Whether another process holds dpkg's lock; False when we may not ask."""
    try:
        with lock.open("r+b") as handle:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
