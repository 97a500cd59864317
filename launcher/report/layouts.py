"""How one line of a shard file is built: as JSON by ``Record.line``, or as a CSV's row.

A layout has a pattern that cuts a usual line into a few pieces; fields that stand side by
side stay in one piece. A line that the pattern does not fit (other spacing, quotes inside a
name) can still be parsed in full.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from rdt.spec import record as records
from rdt.spec.record import Record

TYPES: dict[str, Callable[[str], Any]] = {
    f.name: {"int": int, "float": float}.get(str(f.type), str) for f in fields(Record)
}
"""Constructor of each field of a record, by its annotation."""
STATUSES = ("missing", "success", "fail", *records.ERRORS)
FORMULA_STARTS = ("=", "+", "-", "@")

# TEXT, ERROR, INT and N are replaced below. JSON's keys are sorted, a CSV's columns are a record's.
_JSON = r"""^\{"actions_sha256": TEXT, "attempt": INT, "checkpoint": (?P<checkpoint>TEXT), \
"error": ERROR, "fixtures_sha256": "(?P<fixtures>[^"]*)", "host": TEXT, \
(?P<who>"init_state": N, "policy": TEXT), "policy_s": (?P<policy_s>N), \
"protocol": (?P<protocol>TEXT), "queries": INT, "renders": INT, "shard": INT, \
"state_sha256": TEXT, (?P<outcome>"status": TEXT, "steps": N), \
(?P<what>"suite": TEXT, "task_id": N, "task_name": TEXT, "trial": N), "wall_s": (?P<wall_s>LAST)\}
"""
_CSV = r"""^(?P<who>N,N,N,N),(?P<what>N,N),(?P<outcome>N,N),INT,INT,(?P<wall_s>N),(?P<policy_s>N),\
(?P<protocol>N),(?P<checkpoint>N),N,(?P<fixtures>N),N,INT,INT,N,ERROR
"""


def _pattern(text: str, **parts: str) -> re.Pattern[bytes]:
    text = text.replace("\\\n", "")
    for name, part in parts.items():
        text = re.sub(rf"\b{name}\b", part.replace("\\", r"\\"), text)
    return re.compile(text.encode(), re.MULTILINE)


@dataclass(frozen=True)
class Layout:
    """``header`` is the first line (CSV only); ``names`` says which fields a piece holds."""

    header: bytes
    pattern: re.Pattern[bytes]
    names: dict[str, tuple[str, ...]]

    def fields(self, piece: bytes, group: str) -> dict[str, Any]:
        """What a piece of several fields says; ValueError when a value cannot be."""
        if not self.header:
            return checked(json.loads(b"{" + piece + b"}"))
        cells = zip(self.names[group], piece.decode().split(","), strict=True)
        return checked({name: TYPES[name](_bare(cell)) for name, cell in cells})

    def text(self, piece: bytes) -> str:
        """What a piece of one text says."""
        return _bare(piece.decode()) if self.header else str(json.loads(piece))

    def parse(self, line: bytes) -> Record:
        """The record of one line without newline; ValueError or TypeError when it is none."""
        text = line.decode("utf-8")
        if not self.header:
            record = records.parse(text)
            checked(vars(record))
            return record
        (cells,) = csv.reader([text], strict=True)
        named = zip(TYPES, cells, strict=True)
        return Record(**checked({name: TYPES[name](_bare(cell)) for name, cell in named}))


# Sets of a single character are what the engine is fast at. They may run over the end of a text
# or of a line, but then no row comes out, or one whose numbers are none: the reader notices.
JSON = Layout(
    header=b"",
    pattern=_pattern(
        _JSON,
        TEXT='"[^"]*"',
        ERROR=r'"[^"\\]*(?:\\.[^"\\]*)*"',
        N="[^,]+",
        LAST="[^}]+",
        INT=r"\d+",
    ),
    names={},
)
CSV = Layout(
    header=",".join(TYPES).encode() + b"\n",
    pattern=_pattern(_CSV, ERROR=r'(?:[^,"\n]*|"(?:[^"\n]|"")*")', N="[^,]*", INT=r"\d+"),
    names={
        "who": ("policy", "suite", "task_id", "task_name"),
        "what": ("init_state", "trial"),
        "outcome": ("status", "steps"),
    },
)


def checked(values: dict[str, Any]) -> dict[str, Any]:
    """``values`` unchanged; ValueError when one of them cannot belong to its field."""
    for name, value in values.items():
        if not _possible(TYPES[name], value) or (name == "status" and value not in STATUSES[1:]):
            raise ValueError(f"{name} cannot be {value!r}")
    return values


def _possible(kind: Callable[[str], Any], value: Any) -> bool:
    if kind is str:
        return isinstance(value, str)
    count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32
    return count or (kind is float and isinstance(value, float))


def guarded(text: str) -> str:
    """``text`` as a cell: an apostrophe keeps spreadsheets from running it as a formula."""
    return "'" + text if text.lstrip().startswith(FORMULA_STARTS) else text


def _bare(cell: str) -> str:
    """Inverse of :func:`guarded`."""
    return cell[1:] if cell.startswith("'") and guarded(cell[1:]) == cell else cell
