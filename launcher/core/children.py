"""Child processes that belong together: signals go to all, one failure ends the rest.

Used on a node (one container, or one process per GPU) and inside a container
(one process per rank). Standard library only.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Sequence

from launcher.core.errors import EXIT_LOST, EXIT_TERMINATED

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
REPEAT_S = 3.0
GRACE_S = 60.0
"""How long children may go on after one has failed: a rank stuck in a GPU kernel hears no TERM."""


def forward_signals(children: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Pass signals on to the children; returns the list in which received ones are collected.

    ``children`` may still grow. The same signal may come several times (some clusters
    signal every process of a task, and :func:`wait_for` repeats), so the children
    must take it as "asked", not as "asked once more".
    """
    seen: list[int] = []

    def forward(number: int, frame: object) -> None:
        seen.append(number)
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    for number in FORWARDED:
        signal.signal(number, forward)
    return seen


def wait_for(
    children: Sequence[subprocess.Popen[bytes]],
    resumable: Sequence[int] = (),
    seen: Sequence[int] = (),
) -> int:
    """The first exit code that means failure, else a resumable one, else 0.

    One dead child ends the others (SIGTERM, after GRACE_S SIGKILL): they would hang in a
    rendezvous, and what only remembers TERM would never look at it. A child
    that saved its state (an exit code of ``resumable``) ends nobody: all do the same.
    One that only lost the others (87) is not the cause, if there is one among them.
    A child killed by signal N counts as 128 + N. What is in ``seen`` already came before
    the children were there and is passed on first; SIGUSR2 is repeated, because a
    program that was still starting has not heard it.
    """
    pending = list(children)
    for number in set(seen):
        for child in pending:
            child.send_signal(number)
    saved, failed = 0, 0
    repeated = time.monotonic()
    patience, killed = float("inf"), False
    while pending:
        with contextlib.suppress(subprocess.TimeoutExpired):
            pending[0].wait(timeout=0.2)
        if signal.SIGUSR2 in seen and time.monotonic() - repeated > REPEAT_S:
            repeated = time.monotonic()
            for child in pending:
                child.send_signal(signal.SIGUSR2)
        for child in [c for c in pending if c.poll() is not None]:
            pending.remove(child)
            code = child.returncode if child.returncode >= 0 else 128 - child.returncode
            if code in resumable:
                saved = saved or code
            elif code and not failed:
                failed, patience = code, time.monotonic() + GRACE_S
                for other in pending:
                    other.terminate()
            elif code and failed == EXIT_LOST and not killed and code != EXIT_TERMINATED:
                failed = code
        if time.monotonic() > patience:
            killed = True
            for child in pending:
                child.kill()
    return failed or saved
