"""What counts as proof that results are elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from launcher.core.box_training import uploads
from launcher.dag import load, resolve
from launcher.providers.job import closing
from tests.cli.run_rdtl import rdtl


def proven(text: str) -> str | None:
    """The place that a line of a closing step proves."""
    for marker in load.signature_file("uploads").markers:
        if found := re.search(marker.pattern, text):
            return found["proven"]
    return None


def test_only_a_place_is_proof(tmp_path: Path) -> None:
    assert proven(uploads(tmp_path, "gg1:runs/ae", 3, follow=False)) == "gg1:runs/ae"
    assert proven(uploads(tmp_path, "", 3, follow=False)) is None
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "card.json").write_text("{}")
    place = f"file://{tmp_path}/store"
    sent = rdtl("stage", "out", "policy", place, cwd=tmp_path)
    assert proven(sent.stdout.strip()) == place, sent.stderr


@pytest.mark.parametrize(
    "name", ["openpi/waypoint-ae", "openpi/waypoint-vlm", "openpi/serve-eval", "rdt/finetune"]
)
def test_recipes_for_boxes_end_with_such_a_step(name: str) -> None:
    loaded = load.load(name)
    given = {
        key: "x"
        for key, one in loaded.recipe.parameters.items()
        if one.default is None and not one.choices
    }
    graph = resolve.resolve(loaded, "/run", None, given)
    steps = closing(graph)
    assert steps
    for step in steps:
        patterns = [marker.pattern for marker in graph.step(step).markers]
        assert any("?P<proven>" in pattern for pattern in patterns)
