"""Events as they come, for whoever looks, as often and from wherever they like."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from launcher.core.dag_files import BoxRun, parsed


class Tail:
    """Reads what was added to the events since it last looked."""

    def __init__(self, run: BoxRun, after: int) -> None:
        self.run, self.after = run, after
        self.last = ""
        """Name of the newest event that is there, asked for or not."""
        self.inode = self.offset = 0

    def new(self) -> list[dict[str, Any]]:
        """Events with larger numbers than all before."""
        found = []
        for event in self._added():
            self.last = event["event"]
            if event["seq"] > self.after:
                self.after = event["seq"]
                found.append(event)
        return found

    def _added(self) -> list[dict[str, Any]]:
        try:
            handle = self.run.events.open("rb")
        except FileNotFoundError:
            return []
        with handle:
            inode = os.fstat(handle.fileno()).st_ino
            if inode != self.inode:  # the first look, or the file was put aside meanwhile
                self.inode, self.offset = inode, 0
                return self.run.told()
            handle.seek(self.offset)
            *whole, _ = handle.read().split(b"\n")
            self.offset += sum(len(line) + 1 for line in whole)
        return list(parsed([line.decode("utf-8", "replace") for line in whole]))


def follow(run: BoxRun, after: int, alive_every_s: float = 5.0) -> Iterator[dict[str, Any]]:
    """Events as they come, until the runner is gone; ``alive`` says that it lives and is silent.

    The last one is ``end``, or ``gone`` when the runner died without one.
    """
    tail, spoke = Tail(run, after), time.monotonic()
    while True:
        living = run.owner() is not None  # first: what it told before it ended is read below
        for event in tail.new():
            spoke = time.monotonic()
            yield event
        if not living:
            if tail.last != "end":
                yield {"event": "gone", "seq": tail.after, "at": round(time.time(), 3)}
            return
        if time.monotonic() - spoke >= alive_every_s:
            spoke = time.monotonic()
            yield {"event": "alive", "seq": tail.after, "at": round(time.time(), 3)}
        time.sleep(0.1)
