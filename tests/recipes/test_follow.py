"""Events over a connection that ends in the middle of a line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from launcher.core import dag
from launcher.core.dag import Step
from launcher.dag import follow
from launcher.dag.client import Order
from launcher.dag.places import Place
from launcher.ssh import Connection
from tests.recipes.boxes import Box

SSH = """#!/bin/bash
# ssh to this machine; the first connection ends behind a number of bytes
for command; do :; done
printf x >> "$CUTS"
if [ "$(cat "$CUTS")" = x ]; then bash -c "$command" | head -c "$BYTES"; exit 255; fi
exec bash -c "$command"
"""


@pytest.mark.parametrize("into", [b'"step_d', "groß".encode()[:-1]], ids=["line", "letter"])
def test_a_line_that_is_cut_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, into: bytes
) -> None:
    box = Box(tmp_path)
    said = dag.Marker("said", "wie (?P<how>.*)")
    box.write(Step("one", script="echo 'wie groß: 7'", markers=(said,)))
    assert box.call("run").returncode == 0
    told = box.run.events.read_bytes()
    shim = tmp_path / "bin" / "ssh"
    shim.parent.mkdir()
    shim.write_text(SSH)
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("CUTS", str(tmp_path / "cuts"))
    monkeypatch.setenv("BYTES", str(told.index(into) + len(into)))
    monkeypatch.setattr(follow, "PAUSE_S", 0.0)
    place = Place("far", Connection("far"))
    (box.run.root / "runner.pyz").symlink_to(tmp_path / "runner.pyz")
    seen = [e for e in follow.events(Order(None, box.run.load(), place, str(box.run.root))) if e]
    assert [event["event"] for event in seen].count("lost") == 1
    assert [e for e in seen if e["event"] != "lost"] == box.run.told()
    assert (tmp_path / "cuts").read_text() == "xx"


def test_a_line_that_is_torn_inside_a_letter_is_left_out(tmp_path: Path) -> None:
    box = Box(tmp_path)
    said = dag.Marker("said", "wie (?P<how>.*)")
    box.write(Step("one", script="echo 'wie groß: 7'", markers=(said,)))
    assert box.call("run").returncode == 0
    told = box.run.events.read_bytes()
    box.run.events.write_bytes(told[: told.index("ß".encode()) + 1])  # as a SIGKILL leaves it
    known = box.run.told()
    for _ in range(2):  # the second one finds the torn line in the middle of the file
        assert box.call("status").returncode == 0
        done = box.call("run")
        assert done.returncode == 0, done.stderr
        followed = box.call("follow")
        assert followed.returncode == 0, followed.stderr
        found = [json.loads(line) for line in followed.stdout.splitlines()]
        assert found[: len(known)] == known
        assert found[-1]["event"] == "end"
        assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
