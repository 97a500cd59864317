"""A run goes on with other nodes and ranks, and never with another training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from launcher import presets
from launcher.core import plan
from launcher.core.errors import RefusedError, UsageError
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.core.runtimes import Container
from launcher.create import create
from launcher.drive import Driver
from launcher.extend import recut
from launcher.regroup import adopt, regrouped
from launcher.schema import Collect, Dataset, Evaluate, RunConfig
from launcher.schema_train import Train
from launcher.sites import Site
from launcher.submit.local_backend import LocalBackend

IMAGE = Container("apptainer", "/store/old/image.sif", "all-cpu", "aaaa", "1", "amd64", 10, 20)
SLEEPS = Stage("train", ("/bin/sleep", "60"), own_code=False)


def made(image: Container | None = IMAGE, evaluate: Evaluate | None = None, **train: Any) -> Plan:
    settings = {"effective_batch": 32, "steps": 200, "warmup_steps": 10, **train}
    config = RunConfig(
        name="p",
        collect=Collect(),
        dataset=Dataset(held_out=1),
        train=Train(**settings),
        evaluate=evaluate,
    )
    site = Site(kind="slurm", nodes=8, max_memory_per_node_mb=100_000)
    return presets.pipeline(config, "s", site, RunDir(Path("/runs/p")), image)


@pytest.mark.parametrize(
    "change",
    [
        {"nodes": 4},
        {"ranks_per_node": 8},
        {"micro_batch": 2},
        {"accumulation": 8},
        {"zero_stage": 2, "offload": True},
        {"keep_checkpoints": 5, "stall_minutes": 5},
    ],
)
def test_where_a_training_runs_may_change(change: dict[str, Any]) -> None:
    rebuilt = replace(IMAGE, image="/store/new/image.sif", sha256="bbbb")
    old, new = made(), made(rebuilt, **change)
    found = regrouped(old, new)
    assert found is not None
    assert found.config == new.config
    assert found.stages[:2] == old.stages[:2]
    assert found.stages[2].nodes == change.get("nodes", 1)
    assert found.stages[2].argv == new.stages[2].argv
    assert found.stages[2].container == old.stages[2].container


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"effective_batch": 64},
        {"learning_rate": 1e-4},
        {"nodes": 4, "steps": 300},
        {"dtype": "bf16"},
        {"lora": {}, "checkpoint": "somewhere"},
    ],
)
def test_what_is_learned_may_not(change: dict[str, Any]) -> None:
    assert regrouped(made(), made(**change)) is None


@pytest.mark.parametrize("change", [{"validate_every": 100}, {"validation_batches": 4}])
def test_rounds_may_change_unless_they_end_the_training(change: dict[str, int]) -> None:
    rounds: dict[str, Any] = {"validate_every": 50}
    assert regrouped(made(**rounds), made(**rounds | change)) is not None
    rounds["early_stopping"] = 3
    assert regrouped(made(**rounds), made(**rounds | change)) is None
    assert regrouped(made(**rounds), made(**rounds, nodes=2)) is not None


def test_a_run_whose_episodes_were_cut_anew_moves_too() -> None:
    two, three = Evaluate(shards=2), Evaluate(shards=3)
    cut = recut(made(evaluate=two), made(evaluate=three))
    assert cut is not None
    moved = regrouped(cut, made(evaluate=three, nodes=4))
    assert moved is not None
    assert [s.name for s in moved.stages][2:] == ["train", "evaluate-2", "videos-2", "report-2"]
    assert moved.stage("train").nodes == 4 and moved.stages[3:] == cut.stages[3:]
    assert regrouped(cut, made(evaluate=two, nodes=4)) is None, "one change at a time"


def test_a_batch_that_is_not_given_changes_with_the_ranks() -> None:
    sizes: dict[str, Any] = {"effective_batch": None, "micro_batch": 4, "accumulation": 2}
    assert regrouped(made(**sizes), made(**sizes, nodes=2)) is None


def test_a_plan_changes_only_while_no_task_is_alive(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    old = replace(made(None), stages=(SLEEPS,), site="local")
    new = replace(made(None, ranks_per_node=4), stages=(replace(SLEEPS, cpus=4),), site="local")
    other = replace(made(None, steps=300), stages=(SLEEPS,), site="local")
    assert create(run, old, "old") == old
    with pytest.raises(UsageError, match="RDTL-U013"):
        create(run, other, "other")
    assert create(run, new, "new") == old, "nothing changes before it is known what is alive"
    backend = LocalBackend(run, Site(kind="local"), 1)
    driver = Driver(run, old, backend)
    driver.adopt()
    driver.submit_ready(driver.look())
    try:
        assert [view.state for view in driver.look()] == ["active"]
        with pytest.raises(RefusedError, match="RDTL-T068"):
            adopt(run, old, new, "new", backend)
        assert plan.read(run.plan) == old
    finally:
        driver.cancel()
    assert adopt(run, old, new, "new", backend) == new
    assert plan.read(run.plan) == new
    moved = (run.ledger.read("moved.train.1") or {})["changed"]
    assert moved == {"ranks_per_node": [2, 4], "accumulation": [2, 1]}
