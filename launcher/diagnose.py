"""What a log says went wrong: known signatures, and errors that our own programs explain.

The signatures are those that the runner watches for (``configs/recipes/signatures``), so a
failure has the same code, cause and fix wherever it is met. Equal findings are told once,
with their first place; nothing that looks like a key leaves here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from launcher import config
from launcher.core import dag_reading, errors, signatures
from launcher.core.dag import Signature
from launcher.core.errors import UsageError
from launcher.core.redaction import Redaction
from launcher.core.runs import RunDir
from launcher.dag.load import KIND, SIGNATURES, signature_file

LOGS = ("log", "log.1", "check.log", "*.log", "*.out", "*.err", "*.txt")
SHOWN = 300
"""Characters of a line that are shown."""


@dataclass(frozen=True)
class Found:
    """One cause: the first line that shows it, and how many do."""

    code: str
    severity: str
    cause: str
    fix: str
    file: str
    line: int
    text: str
    count: int = 1

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def known() -> list[Signature]:
    """All signatures of all configuration roots."""
    names = config.names(f"{KIND}/{SIGNATURES}")
    return [
        dag_reading.signature(one.model_dump())
        for name in names
        for one in signature_file(name).signatures
    ]


def logs(place: Path) -> list[Path]:
    """The log files that a path stands for: itself, or those of a run or any folder.

    UsageError RDTL-B080 when there are none.
    """
    found = [place] if place.is_file() else []
    if place.is_dir():
        code = _code(place)
        files = {path for name in LOGS for path in place.rglob(name) if path.is_file()}
        found = sorted(path for path in files if not any(path.is_relative_to(one) for one in code))
    if not found:
        raise UsageError(
            "RDTL-B080",
            "there is no log to look at",
            where=str(place),
            why="a path is a file, or a folder with logs (RUN/logs, RUN/steps)",
            fix="name the log itself, or a run directory",
        )
    return found


def _code(place: Path) -> list[Path]:
    """The copies of code in a run: logs that somebody's repository holds are not this run's."""
    run = RunDir(place)
    return [run.code, run.work] if run.plan.exists() else []


def diagnose(place: Path) -> list[Found]:
    """What the logs of ``place`` show: errors first, each in the order in which it appeared.

    Raises UsageError RDTL-B080 and OSError.
    """
    redact, all_known = Redaction(), known()
    found: dict[tuple[str, str], Found] = {}
    for path in logs(place):
        for one in _in_file(path, all_known):
            key = (one.code, one.cause)
            again = found.get(key)
            found[key] = replace(again, count=again.count + 1) if again else one
    shown = [
        replace(one, text=redact(one.text)[:SHOWN], cause=redact(one.cause), fix=redact(one.fix))
        for one in found.values()
    ]
    return sorted(shown, key=lambda one: one.severity != "error")


def _in_file(path: Path, all_known: Iterable[Signature]) -> Iterator[Found]:
    lines = list(_lines(path))
    yield from _own(path, lines)
    for number, signature in signatures.matches(all_known, (text for _, text in lines)):
        place, text = lines[number - 1]
        told = (signature.code, signature.severity, signature.cause, signature.fix)
        yield Found(*told, str(path), place, text.strip())


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines; what progress bars write over each other (``\\r``) counts as several."""
    with path.open(encoding="utf-8", errors="replace", newline="\n") as handle:
        for number, line in enumerate(handle, 1):
            for piece in line.rstrip("\r\n").split("\r"):
                yield number, piece


def _own(path: Path, lines: list[tuple[int, str]]) -> Iterator[Found]:
    """Errors that our programs explain themselves."""
    for place, problem in errors.said([text for _, text in lines]):
        number, line = lines[place]
        cause = ". ".join(filter(None, (problem.what, problem.why)))
        told = (problem.code, "error", cause, problem.fix)
        yield Found(*told, str(path), number, problem.where or line.strip())
