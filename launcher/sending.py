"""Sending a part exactly once, whoever was killed and whatever did not answer."""

from __future__ import annotations

import time

from launcher.arrays import Part, Submissions
from launcher.backend import Backend
from launcher.core.plan import Stage
from launcher.markers import Markers


class Sender:
    """Sends parts of one run. What lies between a try and its record is looked up first."""

    def __init__(self, record: Submissions, markers: Markers, backend: Backend) -> None:
        self._record = record
        self._markers = markers
        self._backend = backend
        self._not_in: dict[Part, int] = {}

    def is_open(self, part: Part, missing: set[int]) -> bool:
        """Whether a part is still to be sent: tasks of it are missing, nobody cancelled it."""
        return (
            self._record.ids(part) is None
            and not missing.isdisjoint(part.indices)
            and not self._record.is_cancelled(part)
        )

    def settle(self, part: Part) -> None:
        """Wait until it is known whether a try that was given up went in."""
        while self._known_out(part) is None and self._record.ids(part) is None:
            if self._record.newest(part).state == "busy":
                return
            time.sleep(self._backend.poll_s)

    def send(self, stage: Stage, part: Part, after: list[str]) -> list[str] | None:
        """Send a part unless it is in already; its ids, or None when that must wait."""
        tries = self._known_out(part)
        if tries is not None and self._backend.room(len(part.indices)):
            if not self._record.begin(part, tries):
                return None
            ids = self._backend.submit(stage, part, after)
            if ids == []:
                self._not_in[part] = tries + 1
            elif ids:
                self._record.sent(part, ids)
                if self._record.is_cancelled(part):  # too late for that one to see this job
                    self._backend.cancel(ids)
        return self._record.ids(part)

    def _known_out(self, part: Part) -> int | None:
        """The newest try of a part that is certainly not in; None when it is, or nobody knows.

        A try that was given up is looked up; what is found is recorded.
        """
        newest = self._record.newest(part)
        if self._record.ids(part) is not None or newest.state == "busy":
            return None
        if newest.state == "unclear" and self._not_in.get(part) != newest.number:
            found = self._backend.find(part, newest.at)
            if found or (found is not None and self._ran(part)):
                self._record.sent(part, found)
            if found is None or self._record.ids(part) is not None:
                return None
            self._not_in[part] = newest.number
        return newest.number

    def _ran(self, part: Part) -> bool:
        """Whether its tasks left traces: then it was in, although nobody lists it any more."""
        self._markers.refresh()
        marks = (self._markers.marks(part.stage, index) for index in part.indices)
        return any(part.attempt in found for found in marks)
