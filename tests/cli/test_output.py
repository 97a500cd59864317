"""The sink: results to stdout, talk to stderr, never an encoding crash."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.core.errors import RefusedError
from launcher.output import Output
from tests.cli.run_rdtl import rdtl


def test_json_mode_prints_one_document_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.table("t", ["a"], [["1"]])
    output.text("hidden")
    output.result({"a": 1})
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"a": 1}
    assert printed.err == ""


def test_a_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table("title", ["policy", "rate %"], [["rdt", "55.0"], ["expert", "100.0"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "title",
        "  policy  rate %",
        "  ──────────────",
        "  rdt       55.0",
        "  expert   100.0",
    ]


def test_a_terminal_that_cannot_encode_does_not_end_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    Output().text("95 % – ✓")
    stream.flush()
    assert stream.buffer.getvalue() == b"95 % ? ?\n"  # type: ignore[attr-defined]


def test_errors_say_what_where_why_and_what_next(capsys: pytest.CaptureFixture[str]) -> None:
    error = RefusedError("RDTL-X001", "it is wrong", where="f.yaml: a = 1", why="because", fix="do")
    Output().error(error)
    assert capsys.readouterr().err.splitlines() == [
        "error RDTL-X001: it is wrong",
        "  where   f.yaml: a = 1",
        "  why     because",
        "  fix     do",
    ]


PATH = "/a/folder/whose/long/name/is/kept/whole/so-that-it-can-be-copied/from/here"
ERROR = ("runs", "show", PATH)
FINDING = ("evaluate", "demo", "--dry-run", "--runtime", "none", "--set", "task.max_steps=9")


def at_a_terminal(columns: int, cwd: Path, *arguments: str) -> list[str]:
    """Lines that ``rdtl ARGUMENTS`` writes to a terminal of that width."""
    argv = [sys.executable, "-P", "-m", "launcher", *arguments]
    return b"".join(_written(argv, columns, cwd)).decode().splitlines()


def _written(argv: list[str], columns: int, cwd: Path) -> Iterator[bytes]:
    """What a program writes to a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(argv, cwd=cwd, stdout=theirs, stderr=theirs):
        os.close(theirs)
        while chunk := _read(ours):
            yield chunk
    os.close(ours)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so when the other end is closed
        return b""


@pytest.mark.parametrize("columns", [60, 120])
@pytest.mark.parametrize(("command", "begin"), [(ERROR, "error"), (FINDING, "WARN")])
def test_errors_and_findings_fit_into_a_terminal(
    command: tuple[str, ...], begin: str, columns: int, tmp_path: Path
) -> None:
    def of(lines: list[str]) -> list[str]:
        first = next(number for number, line in enumerate(lines) if line.startswith(begin))
        after = (n for n, line in enumerate(lines) if n > first and not line.startswith(" "))
        return lines[first : next(after, None)]

    said = of(at_a_terminal(columns, tmp_path, *command))
    assert all(len(line) <= columns for line in said if PATH not in line)
    assert begin == "WARN" or any(f" {PATH}" in line for line in said), "a path was torn"
    done = rdtl(*command, cwd=tmp_path)
    whole = of([*done.stdout.splitlines(), *done.stderr.splitlines()])
    assert max(map(len, whole)) > 60, "a pipe gets lines as they are"
    assert " ".join(" ".join(said).split()) == " ".join(" ".join(whole).split())


def test_the_end_of_a_log_keeps_its_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("launcher.output._columns", lambda stream: 30)
    where = "/a.log\n          | a line that is too long\n          | \n          |   whole"
    Output().error(RefusedError("RDTL-X001", "it is wrong", where=where, fix="do this, then that"))
    assert stream.getvalue().splitlines() == [
        "error RDTL-X001: it is wrong",
        "  where   /a.log",
        "          | a line that is too",
        "          | long",
        "          |",
        "          |   whole",
        "  fix     do this, then that",
    ]


def test_what_is_silent_says_after_two_seconds_that_it_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("launcher.output.QUIET_S", 0.2)
    output = Output()
    with output.working("reading a set"):
        pass
    assert capsys.readouterr().err == "", "what is quick says nothing"
    with pytest.raises(RefusedError), output.working("reading a set"):
        time.sleep(0.5)
        raise RefusedError("RDTL-X001", "it is wrong")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "reading a set [0:00]\n")
    time.sleep(0.3)
    assert capsys.readouterr().err == "", "it goes on talking"


def test_a_changing_line_is_removed_from_a_terminal(tmp_path: Path) -> None:
    code = (
        "import time, launcher.output as o; o.QUIET_S = 0.1; out = o.Output()\n"
        "with out.working('reading'): time.sleep(0.3)\n"
        "out.text('result')"
    )
    said = b"".join(_written([sys.executable, "-c", code], 80, tmp_path)).decode()
    assert said.index("reading [0:00]") < said.index("\r\x1b[K", said.index("reading"))
    assert said.endswith("result\r\n")


def test_no_colour_reaches_a_terminal_that_wants_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs"
    assert rdtl("run", "--name", "a", "--", "true", cwd=tmp_path).returncode == 0
    shown = at_a_terminal(100, tmp_path, "runs", "watch", str(run / "a-local"), "--once")
    assert any("\x1b[" in line for line in shown), "this frame has colours at all"
    monkeypatch.setenv("NO_COLOR", "1")
    plain = at_a_terminal(100, tmp_path, "runs", "watch", str(run / "a-local"), "--once")
    assert not any("\x1b[3" in line or "\x1b[9" in line for line in plain)
