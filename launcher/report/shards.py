"""Reads any number of shard files into a few numbers per planned episode.

A shard file is append-only: ``part-*.jsonl`` (:meth:`rdt.spec.record.Record.line`) or
``part-*.csv`` (like ``episodes.csv``). A line counts only with its newline; an episode
counts once, whichever files repeat it: the first line that is no error, else the last
error. Memory does not grow with the number or size of the files.

Lines repeat themselves (policy, task, outcome, initial state take few values), so what a
piece of a line means is worked out once and then looked up.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from operator import add
from pathlib import Path
from typing import Any, TypeVar

from launcher.report.episodes import CELL, FINISHED, Episodes
from launcher.report.layouts import CSV, JSON, STATUSES, Layout
from rdt.spec import protocol as protocols
from rdt.spec.planned import Planned

BLOCK = 1 << 20
NOWHERE = -(1 << 60)
EXPECTED = (
    *(protocols.FILE, protocols.STACK, protocols.WEIGHTS, protocols.SERVER),
    *(protocols.AGREEMENT, protocols.ACTIONS, protocols.BEGUN),
)
PIECES = ("who", "what", "outcome", "wall_s", "policy_s", "protocol", "checkpoint", "fixtures")

Value = TypeVar("Value")
Row = tuple[int, tuple[int, int], float, float, int, int, bytes, int]
"""Number of the episode (negative: not planned), status and steps, seconds, seconds of the
policy, places of protocol and checkpoint in their lists, fixture digest, place of the line."""


class UnreadableError(Exception):
    """A whole line that is no record: file, line number, reason."""


def scan(folder: Path, planned: Planned) -> Episodes:
    """Count the shard files of ``folder`` in name order; an absent folder counts nothing.

    Raises :class:`UnreadableError` for a line with newline that is no record.
    """
    n, scenes = len(planned), len(planned.tasks) * planned.per_task
    episodes = Episodes(planned, bytearray(n), bytearray(CELL.size * n), [b""] * scenes)
    readers = {layout.header: _Reader(episodes, layout) for layout in (JSON, CSV)}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or path.name in EXPECTED:
            continue  # a file that is being published, or that stands here by right
        if (layout := _layout(path)) is None:
            episodes.foreign.append(path.name)
        else:
            readers[layout.header].read(path)
    return episodes


def _layout(path: Path) -> Layout | None:
    """How the lines of this file are built; None when it is no shard file."""
    if not path.name.startswith("part-") or not path.is_file():
        return None
    if path.suffix == ".jsonl":
        return JSON
    if path.suffix != ".csv":
        return None
    with path.open("rb") as handle:
        return CSV if handle.readline() == CSV.header else None


class _Known(dict[bytes, Value]):
    """What pieces mean, worked out at the first look."""

    def __init__(self, meaning: Callable[[bytes], Value]) -> None:
        super().__init__()
        self._meaning = meaning

    def __missing__(self, piece: bytes) -> Value:
        self[piece] = value = self._meaning(piece)
        return value


class _Reader:
    """Adds the lines of files of one layout to the columns."""

    def __init__(self, episodes: Episodes, layout: Layout) -> None:
        self._episodes = episodes
        self._layout = layout
        self._order = [layout.pattern.groupindex[name] - 1 for name in PIECES]
        self._digests = dict[bytes, bytes]()
        self._who = _Known(lambda piece: self._number(layout.fields(piece, "who")))
        self._what = _Known(lambda piece: self._number(layout.fields(piece, "what")))
        self._outcome = _Known(lambda piece: _outcome(layout.fields(piece, "outcome")))
        self._protocol = _Known(lambda piece: _place(episodes.protocols, layout.text(piece)))
        self._checkpoint = _Known(lambda piece: _place(episodes.checkpoints, layout.text(piece)))

    def read(self, path: Path) -> None:
        """Count every whole line of a file; report a torn last one."""
        episodes, place = self._episodes, len(self._episodes.files) << 32
        episodes.files.append((path, self._layout))
        with path.open("rb") as handle:
            place += bool(self._layout.header and handle.readline())
            rest = b""
            while block := handle.read(BLOCK):
                block = rest + block
                end = block.rfind(b"\n") + 1
                lines, rest = block[:end], block[end:]
                if end:
                    count = lines.count(b"\n")
                    self._add(self._rows(lines, count, place, path))
                    place += count
        if rest:
            episodes.torn.append(path.name)

    def _rows(self, lines: bytes, count: int, place: int, path: Path) -> Iterable[Row]:
        """What ``count`` whole lines say; ``place`` is that of the first."""
        found = self._layout.pattern.findall(lines)
        if len(found) == count:
            try:
                return self._usual(found, place)
            except (ValueError, TypeError, OverflowError, RecursionError):
                pass  # one of these lines is no record: the other way finds out which
        return self._single(lines, place, path)

    def _usual(self, found: list[tuple[bytes, ...]], place: int) -> Iterable[Row]:
        """Rows of lines that the pattern fits, a column at a time."""
        columns = list(zip(*found, strict=True))
        who, what, outcome, wall_s, policy_s, protocol, checkpoint, fixtures = (
            columns[index] for index in self._order
        )
        return zip(
            list(map(add, map(self._who.__getitem__, who), map(self._what.__getitem__, what))),
            list(map(self._outcome.__getitem__, outcome)),
            list(map(float, wall_s)),
            list(map(float, policy_s)),
            list(map(self._protocol.__getitem__, protocol)),
            list(map(self._checkpoint.__getitem__, checkpoint)),
            fixtures,
            range(place, place + len(found)),
            strict=True,
        )

    def _single(self, lines: bytes, place: int, path: Path) -> Iterable[Row]:
        """Rows of any lines, each parsed in full; raises UnreadableError."""
        episodes = self._episodes
        for at, line in enumerate(lines.split(b"\n")[:-1], place):
            if not line:
                continue
            try:
                r = self._layout.parse(line)
                number = self._number(vars(r))
            except (ValueError, TypeError, RecursionError, csv.Error) as error:
                raise UnreadableError(path, (at & 0xFFFFFFFF) + 1, error) from error
            yield (
                number, _outcome(vars(r)), r.wall_s, r.policy_s,
                _place(episodes.protocols, r.protocol), _place(episodes.checkpoints, r.checkpoint),
                r.fixtures_sha256.encode(), at,
            )  # fmt: skip

    def _add(self, rows: Iterable[Row]) -> None:
        """Count rows that are planned and new."""
        e = self._episodes
        status, cells, fixtures, pack = e.status, e.cells, e.fixtures, CELL.pack_into
        scenes, size, known = len(fixtures), CELL.size, self._digests
        for number, (kind, length), seconds, thought, protocol, checkpoint, digest, at in rows:
            if number < 0:
                e.unplanned += 1
                continue
            if old := status[number]:
                e.duplicates += 1
                if old <= FINISHED:
                    continue
            status[number] = kind
            pack(cells, number * size, length, protocol << 16 | checkpoint, seconds, thought, at)
            if digest:
                scene = number % scenes
                seen = fixtures[scene]
                if not seen:
                    fixtures[scene] = known.setdefault(digest, digest)  # most trials share one
                elif seen != digest:
                    e.odd.add(scene)

    def _number(self, values: dict[str, Any]) -> int:
        """What some fields of a key add to the number of its episode; negative: not planned."""
        if "task_name" in values:
            task = values["suite"], values["task_id"]
            self._episodes.task_names.setdefault(task, values["task_name"])
        part = self._episodes.planned.part(values)
        return NOWHERE if part is None else part


def _outcome(values: dict[str, Any]) -> tuple[int, int]:
    return STATUSES.index(values["status"]), values["steps"]


def _place(known: list[str], text: str) -> int:
    """Place of ``text`` in a list that grows."""
    if text not in known:
        known.append(text)
    return known.index(text)
