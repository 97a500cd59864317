"""The one place that prints.

Results (tables, values, ``--json``) go to stdout, everything that talks to a
person (progress, hints, errors) to stderr. ``--json`` prints one JSON document
per command on stdout and nothing else there.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from launcher.core.checks import Finding
from launcher.core.errors import RdtlError

QUIET_S = 2.0
"""What takes longer says that it is at work."""
ERROR_INDENT = 10
"""Where the sentences of an error begin, below one another."""
MARKS = {"ok": "ok  ", "info": "info", "warning": "WARN", "error": "FAIL"}


class Output:
    """Prints for a person or, with ``as_json``, for a program."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.if_interrupted = "what is finished is kept, the same command continues"
        """What is true, and how to go on, if Ctrl-C comes now; commands that know better say so."""
        self._status = ""
        self._last_plain = 0.0
        self._told: set[Finding] = set()

    def say(self, text: str = "") -> None:
        """A line for a person."""
        self.clear_status()
        print(_printable(text, sys.stderr), file=sys.stderr, flush=True)

    def status(self, text: str) -> None:
        """A line that changes: rewritten on a terminal, every 10 s otherwise."""
        if not sys.stderr.isatty():
            if text != self._status and time.monotonic() - self._last_plain >= 10:
                self._last_plain = time.monotonic()
                self._status = text
                print(_printable(text, sys.stderr), file=sys.stderr, flush=True)
            return
        self._status = _printable(text, sys.stderr)[: _columns(sys.stderr) - 1]
        print(f"\r\033[K{self._status}", end="", file=sys.stderr, flush=True)

    def clear_status(self) -> None:
        """Remove the changing line from a terminal."""
        if self._status and sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
            self._status = ""

    @contextlib.contextmanager
    def working(self, what: str) -> Iterator[None]:
        """For what cannot say how far it is: after 2 s says what goes on, and since when."""
        over, began = threading.Event(), time.monotonic()

        def tell() -> None:
            pause = QUIET_S
            while not over.wait(pause):
                pause = 1.0
                minutes, seconds = divmod(int(time.monotonic() - began), 60)
                self.status(f"{what} [{minutes}:{seconds:02d}]")

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            over.set()
            teller.join()
            self.clear_status()

    def text(self, text: str = "") -> None:
        """Result text on stdout, as it is (a script, a log); nothing in JSON mode."""
        if not self.as_json:
            self.clear_status()
            print(_printable(text, sys.stdout), flush=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A result table on stdout; the first column is left-aligned, the others right-aligned."""
        if self.as_json:
            return
        widths = [max(len(r[i]) for r in [columns, *rows]) for i in range(len(columns))]
        self.text(f"\n{title}")
        for number, row in enumerate([columns, *rows]):
            cells = [
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            self.text("  " + "  ".join(cells).rstrip())
            if number == 0:
                self.text("  " + "─" * (sum(widths) + 2 * len(widths) - 2))

    def result(self, data: Any) -> None:
        """The command's result for programs; printed in JSON mode only."""
        if self.as_json:
            print(json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False), flush=True)

    def finding(self, finding: Finding) -> None:
        """One finding of a check, with reason and remedy unless it is fine."""
        self._told.add(finding)
        self.remark(MARKS[finding.severity], finding.code, finding.what, _details(finding))

    def remark(self, mark: str, code: str, what: str, details: Mapping[str, str]) -> None:
        """A line of a check as :meth:`finding` prints it, with what is to be said below it."""
        for line in _lines(mark, code, what, details, sys.stdout):
            self.text(line)

    def hint(self, finding: Finding) -> None:
        """The same for a person who asked for something else; nothing that was said already."""
        if finding in self._told:
            return
        self._told.add(finding)
        mark = MARKS[finding.severity]
        for line in _lines(mark, finding.code, finding.what, _details(finding), sys.stderr):
            self.say(line)

    def fitted(self, text: str, indent: int) -> None:
        """A line that a terminal's edge breaks at a space; what follows begins at ``indent``."""
        self.text(_fitted(text, indent, sys.stdout))

    def field(self, name: str, text: str) -> None:
        """A named sentence below what it belongs to, wrapped at a terminal."""
        self.text(_field(name, text, sys.stdout))

    def interrupted(self) -> None:
        """Ctrl-C ended the command."""
        if self.if_interrupted:
            self.say(f"interrupted; {self.if_interrupted}")

    def error(self, error: RdtlError) -> None:
        """An error: JSON on stdout in JSON mode, and always the human form on stderr."""
        if self.as_json:
            print(json.dumps({"error": error.to_dict()}, sort_keys=True), flush=True)
        for line in error.problem.lines():
            self.say(_fitted(line, ERROR_INDENT, sys.stderr))


def _details(finding: Finding) -> dict[str, str]:
    """Where, why and what to do, unless it is fine."""
    told = {"where": finding.where, "why": finding.why, "fix": finding.fix}
    return told if finding.severity in ("warning", "error") else {}


def _lines(
    mark: str, code: str, what: str, details: Mapping[str, str], stream: Any
) -> Iterator[str]:
    """A finding, fitted to where it is printed."""
    head = f"{mark}  {code}  "
    yield _fitted(head + what, len(head), stream)
    for name, value in details.items():
        if value:
            yield _field(name, value, stream)


def _field(name: str, text: str, stream: Any) -> str:
    head = f"      {name:<6} "
    return _fitted(head + text, len(head), stream)


def _printable(text: str, stream: Any) -> str:
    """Replace what the stream cannot encode: a tick mark must not end a command."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _columns(stream: Any) -> int:
    """Width of a terminal; some say 0 when they do not know."""
    return os.get_terminal_size(stream.fileno()).columns or 80


def _fitted(text: str, indent: int, stream: Any) -> str:
    """``text`` wrapped for a person at a terminal; as it is for a pipe or a file.

    Its first line goes on below column ``indent``, others (the end of a log) below their own
    beginning. Words are kept whole: a path can be copied then.
    """
    if not stream.isatty():
        return text
    first, *others = text.splitlines() or [""]
    lines = [_wrapped(first[:indent], first[indent:], " " * indent, stream)]
    for line in others:
        margin = line[: len(line) - len(line.lstrip(" |"))]
        lines.append(_wrapped(margin, line[len(margin) :], margin, stream))
    return "\n".join(lines)


def _wrapped(begin: str, text: str, margin: str, stream: Any) -> str:
    """One line as several: the first begins with ``begin``, the others with ``margin``."""
    filled = textwrap.fill(
        text,
        _columns(stream),
        initial_indent=begin,
        subsequent_indent=margin,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled or begin.rstrip()
