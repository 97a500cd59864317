"""How long a stage still takes, in the line that changes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from launcher.core.plan import Stage
from launcher.core.runs import RunDir
from launcher.drive import StageView
from launcher.output import Output
from launcher.progress import Watcher


@pytest.mark.parametrize(
    ("parts", "left"),
    [
        ([(50, 100)], True),
        ([(50, 0)], False),
        ([(50, 100), (0, 0)], False),
        ([(50, 100), (100, 100)], True),
        ([(100, 100), (100, 100)], False),
    ],
)
def test_nothing_is_said_of_an_unknown_length(
    parts: list[tuple[int, int]], left: bool, tmp_path: Path
) -> None:
    run = RunDir(tmp_path)
    view = StageView(Stage("train", ("true",), array=len(parts)), "active", [], [])
    watcher = Watcher(run, Output())
    watcher._begun["train"] = (time.monotonic() - 10, 0.0)
    for index, (done, total) in enumerate(parts):
        path = run.progress("train", index)
        path.parent.mkdir(exist_ok=True)
        found = {"index": index, "done": done, "total": total, "unit": "steps", "text": "", "at": 0}
        path.write_text(json.dumps(found))
    assert bool(watcher._left(view)) is left
