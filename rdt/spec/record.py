"""One finished episode: one line of JSON, appended once.

An episode is identified by its key; a record counts only with its newline. A
later record of the same key replaces an earlier one only if the earlier one is
an error of the harness, so a retried shard can never count an episode twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from launcher.core import files
from launcher.core.errors import RdtlError

Status = Literal["success", "fail", "timeout", "env_error", "policy_error"]
ERRORS = ("timeout", "env_error", "policy_error")
"""An episode that ended so says nothing about the policy: it is run again (`timeout`: it took
longer than an episode may, by the clock)."""


class EpisodeKey(NamedTuple):
    """What an episode depends on, under one protocol. `policy` is e.g. "rdt" or "expert"."""

    policy: str
    suite: str
    task_id: int
    init_state: int
    trial: int

    def text(self) -> str:
        """A name that is safe in file names and unique."""
        return f"{self.policy}-{self.suite}-t{self.task_id}-i{self.init_state}-n{self.trial}"


@dataclass(frozen=True)
class Record:
    """Result of one episode. `steps` counts control steps after settling; times in seconds;
    `state_sha256` is the digest of the simulator's state at the end."""

    policy: str
    suite: str
    task_id: int
    task_name: str
    init_state: int
    trial: int
    status: Status
    steps: int
    queries: int
    renders: int
    wall_s: float
    policy_s: float
    protocol: str
    checkpoint: str
    actions_sha256: str
    fixtures_sha256: str
    state_sha256: str
    attempt: int
    shard: int
    host: str
    error: str = ""

    @property
    def key(self) -> EpisodeKey:
        return EpisodeKey(self.policy, self.suite, self.task_id, self.init_state, self.trial)

    def line(self) -> str:
        """The record as one line of JSON without newline."""
        return json.dumps(asdict(self), sort_keys=True)


def parse(line: str) -> Record:
    """Inverse of :meth:`Record.line`; raises on unknown or missing fields."""
    data: dict[str, Any] = json.loads(line)
    return Record(**data)


def read_folder(folder: Path) -> list[Record]:
    """One record per key of all ``part-*.jsonl`` of ``folder``; see :func:`merge`."""
    return list(merge(read_lines(folder)).values())


def read_lines(folder: Path) -> list[Record]:
    """Every whole line of every ``part-*.jsonl``, in name order, errors and repetitions too.

    Raises RdtlError RDTL-E075 for one that is no record.
    """
    return [record for path in sorted(folder.glob("part-*.jsonl")) for record in _lines(path)]


def _lines(path: Path) -> Iterator[Record]:
    for line in files.read_whole_lines(path)[0]:
        try:
            yield parse(line)
        except (ValueError, TypeError, RecursionError) as error:
            every = [one.decode("utf-8", "replace") for one in path.read_bytes().split(b"\n")]
            raise unreadable(path, every.index(line) + 1, error) from error


def unreadable(path: Path, number: int, reason: Exception) -> RdtlError:
    """RDTL-E075: line ``number`` of ``path``, from 1, is no record for this reason."""
    kind = "no JSON" if isinstance(reason, json.JSONDecodeError) else "no record"
    said = str(reason).encode("unicode_escape").decode()  # it may repeat what stands there
    return RdtlError(
        "RDTL-E075",
        "a line of the records cannot be read",
        where=f"{path}:{number}: {kind}: {said}",
        why="a rate over the lines that happen to parse would hide episodes",
        fix="delete that line with an editor, then repeat the command that started the run; it "
        "continues where it stopped",
    )


def merge(records: Iterable[Record]) -> dict[EpisodeKey, Record]:
    """One record per key: the first that is no harness error, else the last error."""
    kept: dict[EpisodeKey, Record] = {}
    for record in records:
        old = kept.get(record.key)
        if old is None or old.status in ERRORS:
            kept[record.key] = record
    return dict(sorted(kept.items()))
