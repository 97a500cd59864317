"""``rdtl doctor --explain CODE``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.run_rdtl import rdtl


@pytest.mark.parametrize("said", ["RDTL-D016", "d016"])
def test_a_code_is_explained_with_its_remedy_and_its_proof(tmp_path: Path, said: str) -> None:
    done = rdtl("doctor", "--explain", said, cwd=tmp_path)
    assert done.returncode == 0
    first, *parts = done.stdout.splitlines()
    assert first == "RDTL-D016 (error)"
    told = dict(part.split(maxsplit=1) for part in parts)
    assert told["what"] == "a gripper command has another sign or range"
    assert told["test"].startswith("tests/data/test_detect.py::")
    assert {"cause", "fix", "seen", "held", "by", "proof"} < told.keys()


def test_programs_get_the_whole_row(tmp_path: Path) -> None:
    """Cause and fix, too, where only a signature holds them."""
    row = json.loads(rdtl("doctor", "--explain", "S012", "--json", cwd=tmp_path).stdout)
    assert (row["code"], row["severity"]) == ("RDTL-S012", "warning")
    assert row["cause"] and row["fix"] and row["test"]


def test_an_unknown_code_names_what_is_near(tmp_path: Path) -> None:
    done = rdtl("doctor", "--explain", "D099", "--json", cwd=tmp_path)
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "RDTL-U035"
    assert "did you mean RDTL-D0" in error["fix"]
