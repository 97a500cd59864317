"""A plan only grows: what may be added to a run later, and what makes it another run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher import presets
from launcher.core.plan import Plan
from launcher.core.runs import RunDir
from launcher.core.runtimes import Container
from launcher.extend import extended
from launcher.schema import Collect, Evaluate, RunConfig
from launcher.schema_train import Train
from launcher.sites import Site

IMAGE = Container("apptainer", "/store/old/image.sif", "all-cpu", "aaaa", "1", "amd64", 10, 20)


def plan(image: Container | None = IMAGE, **sections: Any) -> Plan:
    config = RunConfig(**{"name": "p", "collect": Collect(), "train": Train(), **sections})
    return presets.pipeline(config, "s", Site(kind="slurm"), RunDir(Path("/runs/p")), image)


def test_an_evaluation_joins_a_finished_training_in_its_image() -> None:
    rebuilt = replace(IMAGE, image="/store/new/image.sif", sha256="bbbb")
    old, new = plan(), plan(rebuilt, evaluate=Evaluate())
    grown = extended(old, new)
    assert grown is not None
    assert grown.stages[: len(old.stages)] == old.stages
    assert [stage.name for stage in grown.stages[3:]] == ["evaluate", "videos", "report"]
    assert {stage.container.sha256 for stage in grown.stages if stage.container} == {"aaaa"}


@pytest.mark.parametrize(
    "change",
    [
        {"train": Train(steps=700), "evaluate": Evaluate()},
        {"seed": 8, "evaluate": Evaluate()},
        {"collect": Collect(demos=5), "evaluate": Evaluate()},
        {},
    ],
)
def test_anything_else_is_another_run(change: dict[str, Any]) -> None:
    assert extended(plan(), plan(**change)) is None
