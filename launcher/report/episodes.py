"""One number per planned episode in each column: all that is kept of any number of records."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, compress
from pathlib import Path

from launcher.report.layouts import Layout
from rdt.spec.planned import Planned
from rdt.spec.record import Record

FINISHED = 2
"""Statuses up to this place ended the episode; later ones are errors."""
CELL = struct.Struct("=IIddQ")
"""Steps, origin, seconds, seconds of the policy, place of the line."""


@dataclass
class Episodes:
    """One number per planned episode in each column; ``status`` indexes STATUSES.

    ``cells`` holds all other columns, one :data:`CELL` an episode: to count an episode is then
    one write to one place in memory. ``fixtures`` holds a digest by task, initial state and
    trial (with openvla-sequential each is another reset), ``odd`` the places in it at which two
    episodes disagree.
    """

    planned: Planned
    status: bytearray
    cells: bytearray
    fixtures: list[bytes]
    odd: set[int] = field(default_factory=set)
    task_names: dict[tuple[str, int], str] = field(default_factory=dict)
    protocols: list[str] = field(default_factory=list)
    checkpoints: list[str] = field(default_factory=list)
    files: list[tuple[Path, Layout]] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    duplicates: int = 0
    unplanned: int = 0

    @property
    def steps(self) -> memoryview[int]:
        """Control steps."""
        return memoryview(self.cells).cast("I")[0::8]

    @property
    def origin(self) -> memoryview[int]:
        """Places of protocol and checkpoint, 16 bits each."""
        return memoryview(self.cells).cast("I")[1::8]

    @property
    def wall_s(self) -> memoryview[float]:
        """Seconds of the episode."""
        return memoryview(self.cells).cast("d")[1::4]

    @property
    def policy_s(self) -> memoryview[float]:
        """Seconds in which the policy computed."""
        return memoryview(self.cells).cast("d")[2::4]

    @property
    def place(self) -> memoryview[int]:
        """File and line that count, 32 bits each."""
        return memoryview(self.cells).cast("Q")[3::4]

    def origins(self, own: range) -> set[int]:
        """The origins of these episodes, as far as they are recorded."""
        where = slice(own.start, own.stop)
        return set(compress(self.origin[where], self.status[where]))

    def recorded(self) -> Iterator[int]:
        """Numbers of the episodes that have a line, in order."""
        return (number for number, status in enumerate(self.status) if status)

    def records(self, numbers: Iterable[int]) -> Iterator[Record]:
        """The lines of recorded episodes, read again from their files."""
        offsets: dict[int, list[int]] = {}
        place = self.place
        for number in numbers:
            file, line = place[number] >> 32, place[number] & 0xFFFFFFFF
            path, layout = self.files[file]
            if file not in offsets:
                lengths = map(len, path.read_bytes().split(b"\n"))
                offsets[file] = list(accumulate((n + 1 for n in lengths), initial=0))
            with path.open("rb") as handle:
                handle.seek(offsets[file][line])
                yield layout.parse(handle.readline().removesuffix(b"\n"))

    def differing_fixtures(self) -> list[tuple[str, int, int]]:
        """(suite, task, initial state) at which two episodes began with different fixtures."""
        keys = (self.planned.key(scene) for scene in sorted(self.odd))
        return list(dict.fromkeys((key.suite, key.task_id, key.init_state) for key in keys))
