"""What a sweep's verdict claims, and that it was looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.report import sweep
from tests.evaluation.test_sweep import swept

WORSE = "Every other cell is worse"


def text(root: Path, outcomes: dict[int, str]) -> str:
    return " ".join(sweep.verdict(swept(root, outcomes)))


def test_a_cell_that_does_better_on_equal_episodes_is_not_called_worse(tmp_path: Path) -> None:
    said = text(tmp_path, {8: "F" * 6 + "S" * 20 + "." * 20, 16: "S" * 6 + "." * 20 + "F" * 20})
    assert "Best: a-h08, 20 of 26" in said
    assert "Better than it on equal episodes: a-h16. It was chosen among 2" in said
    assert WORSE not in said


@pytest.mark.parametrize("third", ["", "F" * 8 + "." * 8])
def test_cells_that_were_not_compared_are_named(tmp_path: Path, third: str) -> None:
    outcomes = {8: "S" * 8 + "." * 8, 16: "." * 8 + "F" * 8} | ({20: third} if third else {})
    said = text(tmp_path, outcomes)
    assert "Not compared with it, as no finished episode is common to both: a-h16." in said
    assert f"It was chosen among {len(outcomes)} " in said
    assert WORSE not in said


def test_what_the_best_cell_lacks_is_said(tmp_path: Path) -> None:
    said = text(tmp_path / "part", {8: "S" * 8 + "..", 16: "F" * 10})
    assert "a-h08: 2 of 10 planned episodes missing, counted in no rate." in said
    assert WORSE in said
    whole = text(tmp_path / "whole", {8: "S" * 10, 16: "F" * 10})
    assert WORSE in whole and "missing" not in whole


def test_cells_without_records_are_not_among_the_worse(tmp_path: Path) -> None:
    said = text(tmp_path, {8: "S" * 10, 16: "F" * 10, 20: "." * 10})
    assert "No record yet: a-h20." in said
    assert "Every other cell with records is worse" in said


def test_a_cell_without_a_result_is_never_the_best(tmp_path: Path) -> None:
    """It asks its policy least often, and nobody has succeeded anywhere."""
    said = text(tmp_path, {8: "F" * 10, 16: "E" * 10})
    assert "Best: a-h08, 0 of 10" in said
    assert "there is no verdict" not in said
