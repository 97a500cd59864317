"""Errors that tell a person what to do next.

Every failure that a user can meet is an :class:`RdtlError` with a stable code
(``RDTL-D013``), the place (file, key, value), the reason why it matters and the
next command. The exit status belongs to the *kind* of error, not to the code.
Nothing here prints; :mod:`launcher.output` does.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_REMOTE = 4
EXIT_INTERRUPTED = 130
EXIT_REQUEUE = 85
"""A job saved its state because its time or its place ends: run it again."""
EXIT_SAVED = 86
"""A job saved its state because it was asked to end: do not run it again by yourself."""
EXIT_LOST = 87
"""A job lost the connection to its other ranks: the cause is with them, or it is their node."""
EXIT_TERMINATED = 143
"""A program was ended by SIGTERM (128 + 15): somebody told it to end, it did not fail."""


@dataclass(frozen=True)
class Problem:
    """The five parts of a message; every part is one short sentence."""

    code: str
    what: str
    where: str = ""
    why: str = ""
    fix: str = ""

    def lines(self) -> list[str]:
        """Human form, one part a line, empty parts left out."""
        parts = [("where", self.where), ("why", self.why), ("fix", self.fix)]
        return [f"error {self.code}: {self.what}"] + [
            f"  {name:<7} {text}" for name, text in parts if text
        ]


SAID = re.compile(r"^error (RDTL-[A-Z]\d{3}): (.*)")
SAID_PART = re.compile(r"^  (where|why|fix) +(.*)")
SAID_BY_A_JOB = '{"error": {'


def said(lines: Sequence[str]) -> Iterator[tuple[int, Problem]]:
    """The problems that our programs left in a log, as text or as a job's JSON, with the place
    of each in ``lines``; what :meth:`Problem.lines` wrote is found again."""
    for place, line in enumerate(lines):
        if found := SAID.match(line):
            parts = map(SAID_PART.match, lines[place + 1 : place + 4])
            yield place, Problem(found[1], found[2], **{p[1]: p[2] for p in parts if p})
        elif line.startswith(SAID_BY_A_JOB):
            try:
                yield place, from_dict(json.loads(line)["error"]).problem
            except (ValueError, KeyError, TypeError):
                continue  # it only begins like one of ours


class RdtlError(Exception):
    """Work failed (exit status 1). Subclasses carry other exit statuses."""

    exit_status = EXIT_FAILED

    def __init__(self, code: str, what: str, *, where: str = "", why: str = "", fix: str = ""):
        super().__init__(what)
        self.problem = Problem(code, what, where, why, fix)

    def __str__(self) -> str:
        return "\n".join(self.problem.lines())

    def to_dict(self) -> dict[str, Any]:
        """JSON form; :func:`from_dict` is its inverse."""
        return {**asdict(self.problem), "exit_status": self.exit_status}

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors come back whole from worker processes."""
        return from_dict, (self.to_dict(),)


class UsageError(RdtlError):
    """Bad usage or configuration (exit status 2)."""

    exit_status = EXIT_USAGE


class RefusedError(RdtlError):
    """A check refused to go on (exit status 3)."""

    exit_status = EXIT_REFUSED


class LostError(RdtlError):
    """Other ranks are gone (exit status 87 of a job; to a launcher it is a failure)."""

    exit_status = EXIT_LOST


class RemoteError(RdtlError):
    """A scheduler or a remote machine failed (exit status 4)."""

    exit_status = EXIT_REMOTE


def from_dict(data: dict[str, Any]) -> RdtlError:
    """Rebuild the error that a job wrote, with the class of its exit status."""
    by_status = {cls.exit_status: cls for cls in (RdtlError, UsageError, RefusedError, RemoteError)}
    cls = by_status.get(data.get("exit_status", EXIT_FAILED), RdtlError)
    return cls(
        data["code"],
        data["what"],
        where=data.get("where", ""),
        why=data.get("why", ""),
        fix=data.get("fix", ""),
    )


def full_disk(error: OSError, doing: str) -> RdtlError | None:
    """The error for a full disk or quota, or None when ``error`` is something else."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return RdtlError(
        "RDTL-G009",
        f"the disk is full: {os.strerror(error.errno)}",
        where=f"{error.filename or 'unknown file'} (while {doing})",
        why="everything published before this point is whole and safe: episodes already recorded, "
        "demonstrations already collected and the newest complete checkpoint are kept",
        fix="free some space and run the same command again; it continues where it stopped",
    )


def file_system(error: OSError, doing: str) -> RdtlError:
    """The error for a path that the file system refuses, a full disk among the reasons."""
    return full_disk(error, doing) or RdtlError(
        "RDTL-G018",
        f"a file or folder cannot be used: {error.strerror or error}",
        where=f"{error.filename2 or error.filename or 'unknown file'} (while {doing})",
        why="the file system refused it; what was there is as it was, and no half output is left",
        fix="check the path and its permissions (ls -ld), or name a folder of yours",
    )
