"""The sink: results to stdout, talk to stderr, never an encoding crash."""

from __future__ import annotations

import io
import json

import pytest

from launcher.core.errors import RefusedError
from launcher.output import Output


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
