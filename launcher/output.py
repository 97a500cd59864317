"""The one place that prints.

Results (tables, values, ``--json``) go to stdout, everything that talks to a
person (progress, hints, errors) to stderr. ``--json`` prints one JSON document
per command on stdout and nothing else there.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

from launcher.core.checks import Finding
from launcher.core.errors import RdtlError

MARKS = {"ok": "ok  ", "info": "info", "warning": "WARN", "error": "FAIL"}


class Output:
    """Prints for a person or, with ``as_json``, for a program."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self._status = ""
        self._last_plain = 0.0

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
        width = shutil.get_terminal_size().columns - 1
        self._status = _printable(text, sys.stderr)[:width]
        print(f"\r\033[K{self._status}", end="", file=sys.stderr, flush=True)

    def clear_status(self) -> None:
        """Remove the changing line from a terminal."""
        if self._status and sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
            self._status = ""

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
        if self.as_json:
            return
        self.text(f"{MARKS[finding.severity]}  {finding.code}  {finding.what}")
        if finding.severity in ("warning", "error"):
            for name in ("where", "why", "fix"):
                if value := getattr(finding, name):
                    self.text(f"      {name:<6} {value}")

    def error(self, error: RdtlError) -> None:
        """An error: JSON on stdout in JSON mode, and always the human form on stderr."""
        if self.as_json:
            print(json.dumps({"error": error.to_dict()}, sort_keys=True), flush=True)
        for line in error.problem.lines():
            self.say(line)


def _printable(text: str, stream: Any) -> str:
    """Replace what the stream cannot encode: a tick mark must not end a command."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
