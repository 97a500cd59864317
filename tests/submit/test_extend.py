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
from launcher.extend import extended, recut
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


def test_what_an_added_evaluation_names_by_uri_is_fetched_before_it() -> None:
    evaluate = Evaluate(checkpoint="s3://bucket/policy", shards=1)
    trained = plan()
    grown = extended(trained, plan(evaluate=evaluate))
    assert grown is not None and grown.stages[: len(trained.stages)] == trained.stages
    assert [asset["uri"] for asset in grown.config["assets"]] == ["s3://bucket/policy"]
    assert grown.stage("evaluate").needs == ("train", "stage")
    assert extended(grown, plan(evaluate=evaluate)) is None, "there is nothing more to add"
    assert extended(trained, plan(evaluate=evaluate, train=Train(steps=700))) is None


def test_what_was_fetched_for_the_training_is_not_fetched_again() -> None:
    data: dict[str, Any] = {"collect": None, "dataset": {"sets": [{"path": "s3://bucket/set"}]}}
    evaluate = Evaluate(checkpoint="s3://bucket/policy", shards=1)
    grown = extended(plan(**data), plan(**data, evaluate=evaluate))
    assert grown is not None
    names = ["stage", "dataset", "train", "stage-2", "evaluate", "videos", "report"]
    assert [stage.name for stage in grown.stages] == names
    assert grown.stage("evaluate").needs == ("train", "stage-2")
    other = {"collect": None, "dataset": {"sets": [{"path": "s3://bucket/other"}]}}
    assert extended(plan(**data), plan(**other, evaluate=evaluate)) is None
    cut = recut(grown, plan(**data, evaluate=evaluate.model_copy(update={"shards": 2})))
    assert cut is not None and cut.stage("stage-2") == grown.stage("stage-2")
    assert next(s for s in cut.stages if s.array == 2).needs == ("train", "stage-2")


def test_what_was_cleaned_away_since_is_fetched_again() -> None:
    data: dict[str, Any] = {"collect": None, "dataset": {"sets": [{"path": "s3://bucket/set"}]}}
    trained = plan(**data)
    grown = extended(trained, plan(**data, evaluate=Evaluate()))
    assert grown is not None and grown.config["assets"] == trained.config["assets"]
    assert grown.stage("evaluate").needs == ("train", "stage-2")
    assert grown.stage("stage-2").argv == trained.stage("stage").argv


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
