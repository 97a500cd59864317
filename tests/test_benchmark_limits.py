"""A benchmark that misses a bar does not end well."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import harness


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"of_limit": 1.01}, "one: 1.01 of its limit"),
        ({"own": {"of_limit": 1.2, "steps": 3}}, "one.own: 1.2 of its limit"),
        ({"equal": False}, "one: the results differ"),
        ({"of_limit": 1.0, "own": {"of_limit": 0.4}}, ""),
    ],
)
def test_a_missed_bar_is_told_and_stored(
    more: dict[str, Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["one"])
    result = {"benchmark": "one", "equal": True, **more}
    if said:
        with pytest.raises(SystemExit) as ended:
            harness.finish(result, [], 0.0)
        assert ended.value.code == harness.MISSED
    else:
        harness.finish(result, [], 0.0)
    assert capsys.readouterr().err.strip() == said
    assert json.loads((tmp_path / "one.json").read_text())["benchmark"] == "one"
