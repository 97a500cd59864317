"""Events of a runner as they come, over connections that may break."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

from launcher.core.errors import EXIT_OK, EXIT_REMOTE, RemoteError
from launcher.dag.client import Order
from launcher.ssh import CHANGED, LOST

SILENCE_S = 30.0
"""The runner says every few seconds that it is there: silence is a dead connection."""
PAUSE_S = 3.0
GIVE_UP_S = 900.0
"""So long a machine may be out of reach; its runner does not care."""


def events(what: Order, after: int = 0) -> Iterator[dict[str, Any] | None]:
    """Events with larger numbers than ``after`` until the runner ends; None about once a second.

    A connection that breaks is made again, and goes on behind the last event. Raises
    RemoteError RDTL-S037 when that fails for long, RDTL-B013 for another host key.
    """
    heard = time.monotonic()
    while True:
        process = subprocess.Popen(
            what.place.argv(what.runner("follow", "--after", str(after)), alone=True),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            for event in _lines(process):
                if event is not None:
                    heard = time.monotonic()
                    after = max(after, int(event["seq"]))
                yield event
            rc, said = _end(process)
        finally:
            process.kill()
            process.communicate()
        if rc in (EXIT_OK, EXIT_REMOTE):  # it told the end, or that the runner is gone
            return
        if rc not in (LOST, None):
            raise what.place.failed(what.runner("follow"), rc, said)
        _again_or_raise(what, said, heard)
        yield {"event": "lost", "seq": after, "at": 0.0}
        yield from _pause()


def _again_or_raise(what: Order, said: str, heard: float) -> None:
    if what.place.connection is None:
        raise RemoteError("RDTL-U134", "the runner says nothing any more", where=what.run)
    if CHANGED in said or time.monotonic() - heard > GIVE_UP_S:
        raise what.place.lost(said)


def _pause() -> Iterator[None]:
    until = time.monotonic() + PAUSE_S
    while time.monotonic() < until:
        time.sleep(0.5)
        yield None


def _lines(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any] | None]:
    """Events of a process until it ends or falls silent."""
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(process, inbox), daemon=True).start()
    heard = time.monotonic()
    while time.monotonic() - heard < SILENCE_S:
        try:
            line = inbox.get(timeout=1.0)
        except queue.Empty:
            yield None
            continue
        if not line:
            return
        heard = time.monotonic()
        yield json.loads(line)


def _read(process: subprocess.Popen[bytes], inbox: queue.SimpleQueue[bytes]) -> None:
    """Bytes, and whole lines only: a connection ends anywhere, also inside a letter."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.endswith(b"\n"):  # the rest of another comes again with the next connection
            inbox.put(line)
    inbox.put(b"")


def _end(process: subprocess.Popen[bytes]) -> tuple[int | None, str]:
    """Exit code and last words; None for one that had to be ended because it was silent."""
    try:
        process.wait(timeout=2.0)
    except subprocess.TimeoutExpired:
        return None, ""
    assert process.stderr is not None
    return process.returncode, process.stderr.read().decode("utf-8", "replace")
