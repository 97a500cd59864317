"""The catalogue of failures: what every code means, how it is caught, and what proves that it is.

Data are in ``configs/failures/AREA.yaml``; this module reads them and answers
``rdtl doctor --explain``. Messages of a failing command say more, because they hold its values;
here is what is true of every one of them. ``tests/test_catalogue.py`` holds that every code of
the sources is here and nothing else is.
"""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path
from typing import Any, Literal

from launcher import config, diagnose
from launcher.core.errors import UsageError
from launcher.output import Output
from launcher.schema_base import Section

KIND = "failures"
PREFIX = "RDTL-"
SEVERITIES = {"E": "error", "W": "warning", "I": "info"}


class Failure(Section):
    """A row of the catalogue."""

    severity: Literal["E", "W", "I"]
    """E refuses or ends the work, W warns, I tells."""
    title: str
    """What is wrong, for all who say this code."""
    cause: str = ""
    """Why it happens. Empty: in the signature by which logs show this code."""
    fix: str = ""
    """What to do. Empty: in the signature."""
    seen: str = ""
    """Where it was met before: practice, measured, source, public issues. Empty: a message of
    ours about a wrong use of our programs."""
    held: Literal["check", "rule", "signature", "design", "not-here"]
    """A check of data, machines or files; a rule over configurations, recipes and locks; a
    signature in logs; a design in which it cannot happen; or nothing here."""
    by: tuple[str, ...] = ()
    """Who holds it: FILE:SYMBOL."""
    proof: Literal["really-caused", "stand-in", "design", "message", "none"]
    """How the test shows it: by causing it; by a program that stands in for hardware or a paid
    service; by showing our way; by a recorded line alone; not at all."""
    test: tuple[str, ...] = ()
    """FILE::TEST of each proof."""
    reason: str = ""
    """Why no test causes it."""
    elsewhere: str = ""
    """What it takes to cause it and no machine of the tests has; such rows are not counted."""
    command: str = ""
    """A command that shows it."""

    @property
    def counted(self) -> bool:
        """Whether it is one of the failures that the tests are measured by."""
        return bool(self.seen) and not self.elsewhere


class Area(Section):
    """A file of the catalogue."""

    about: str
    failures: dict[str, Failure]


def read(path: Path) -> Area:
    """A file as it is."""
    return config.validate(Area, config.read_yaml(path), str(path))


@cache
def areas() -> dict[str, Area]:
    """The files by their letter. Causes and fixes that signatures hold are filled in."""
    known = {one.code: one for one in reversed(diagnose.known())}
    found = {}
    for path in sorted((config.config_roots()[-1] / KIND).glob("*.yaml")):
        area = read(path)
        rows = {
            code: row.model_copy(update={"cause": known[code].cause, "fix": known[code].fix})
            if not row.cause and code in known
            else row
            for code, row in area.failures.items()
        }
        found[path.stem] = Area(about=area.about, failures=rows)
    return found


def failures() -> dict[str, Failure]:
    """All rows by code."""
    return {code: row for area in areas().values() for code, row in area.failures.items()}


def find(said: str) -> tuple[str, Failure]:
    """The code and row that somebody means by ``RDTL-D003``, ``D003`` or ``d003``.

    UsageError RDTL-U035, with the codes that are near, when there is none.
    """
    code = PREFIX + said.strip().upper().removeprefix(PREFIX)
    rows = failures()
    if code in rows:
        return code, rows[code]
    near = difflib.get_close_matches(code, rows, n=12, cutoff=0.8)
    near = sorted(near, key=lambda each: each[:-3] != code[:-3])[:4]  # of its own area first
    raise UsageError(
        "RDTL-U035",
        f"there is no code {said}",
        where=f"--explain {said}",
        why="the catalogue holds every code of this version",
        fix=f"did you mean {', '.join(near)}?" if near else "docs/failures.md lists all codes",
    )


def told(code: str, row: Failure) -> dict[str, Any]:
    """A row for programs."""
    return {"code": code, **row.model_dump(), "severity": SEVERITIES[row.severity]}


def show(output: Output, said: str) -> None:
    """Print what a code means. Raises UsageError RDTL-U035."""
    code, row = find(said)
    output.text(f"{code} ({SEVERITIES[row.severity]})")
    parts = (
        ("what", row.title),
        ("cause", row.cause),
        ("fix", row.fix),
        ("try", row.command),
        ("seen", row.seen),
        ("held", row.held),
        *(("by", place) for place in row.by),
        ("proof", row.proof),
        *(("test", name) for name in row.test),
        ("not", row.reason),
        ("needs", row.elsewhere),
    )
    for name, text in parts:
        if text:
            output.field(name, text)
    output.result(told(code, row))
