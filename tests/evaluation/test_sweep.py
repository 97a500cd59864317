"""Many evaluations as one array: what is run by whom, and what is concluded from it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher import following
from launcher.cli.sweep import sweeping
from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError, UsageError
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.create import create
from launcher.report import sweep as reports
from launcher.schema import RunConfig, Sweep
from rdt.spec import planned
from rdt.spec import sweep as sweeps
from tests.cli.run_rdtl import rdtl
from tests.evaluation.test_plan import run_config
from tests.report import runs


def config_of(evaluate: dict[str, Any] | None = None, **section: Any) -> RunConfig:
    """A sweep of these combinations."""
    asked = {"policies": ["rdt"], "checkpoint": "/weights/a", **(evaluate or {})}
    return sweeping(run_config(**asked).model_copy(update={"sweep": Sweep(**section)}))


def data_of(*arguments: Any, **section: Any) -> dict[str, Any]:
    return config_of(*arguments, **section).model_dump(mode="json")


def test_cells_are_all_combinations_with_names_that_tell_them_apart() -> None:
    steps = ["/runs/a/checkpoints/step_000500", "/runs/b/checkpoints/step_000500/policy"]
    files_ = ["/x/ema/model.safetensors", "hub/rdt-1b"]
    contracts = ["libero-eef6d", "libero-raw-velocity"]
    found = sweeps.cells(
        data_of(checkpoints=[*steps, *files_], horizons=[8, 16], contracts=contracts)
    )
    names = [cell.name for cell in found]
    assert len(found) == len(set(names)) == 4 * 2 * 2
    assert names[0] == "step_000500.1-libero-eef6d-h08"
    assert {name.split("-lib")[0] for name in names} == {
        *("step_000500.1", "step_000500.2"), *("x", "rdt_1b"),
    }  # fmt: skip
    own = sweeps.section(data_of(horizons=[8]), found[1])["evaluate"]
    asked = own["checkpoint"], own["execution_horizon"], own["contract"]
    assert asked == (steps[0], 16, contracts[0])
    assert sweeps.cells(run_config(policies=["zero"]).model_dump(mode="json")) == []


@given(
    cells=st.integers(1, 4), states=st.integers(1, 5), count=st.integers(1, 30),
)  # fmt: skip
def test_parts_cover_every_cell_once(cells: int, states: int, count: int) -> None:
    config = data_of({"init_states": (0, states)}, horizons=list(range(1, cells + 1)))
    shares = [sweeps.share(config, index, count) for index in range(count)]
    found = [(cell.name, key) for share in shares for cell, keys in share for key in keys]
    expected = [
        (cell.name, planned.from_config(sweeps.section(config, cell)).key(number))
        for cell in sweeps.cells(config)
        for number in range(states)
    ]
    assert found == expected
    sizes = [sum(len(keys) for _, keys in share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def swept(root: Path, outcomes: dict[int, str], **section: Any) -> reports.Swept:
    """A sweep over horizons with these outcomes of its episodes."""
    count = len(next(iter(outcomes.values())))
    asked = {"policies": ["rdt"], "checkpoint": "/weights/a", "init_states": (30, 30 + count)}
    config = data_of(asked, horizons=list(outcomes), **section)
    files.write_json(root / "plan.json", {"name": "s", "site": "local", "config": config})
    for cell in sweeps.cells(config):
        if not outcomes[cell.horizon].strip("."):
            continue
        evaluate = sweeps.section(config, cell)["evaluate"]
        run = runs.new_run(root / "cells" / cell.name, **evaluate)
        runs.add_outcomes(run, "rdt", outcomes[cell.horizon])
    return reports.build(root)


@pytest.mark.parametrize(
    ("outcomes", "best", "advice"),
    [
        ({8: "FFFFSSSSSS", 16: "SSSSSSSSSS"}, 16, "keep the weights, evaluate with execution"),
        ({8: "SSSSSFFFFF", 16: "SSSSSFFFFF"}, 16, "above 30 % is not certain yet."),
        ({8: "FFFSFFFFFF", 16: "FFFFFFFFFF"}, 8, "no cell got above 30 %, and more episodes"),
        ({8: "FFSF" * 10, 16: "F" * 40}, 8, "no cell got above 30 %, and more episodes"),
        ({8: "F" * 20, 16: "F" * 20}, 16, "no cell gets above 30 %: train again"),
    ],
)  # fmt: skip
def test_the_verdict(tmp_path: Path, outcomes: dict[int, str], best: int, advice: str) -> None:
    found = swept(tmp_path, outcomes)
    assert found.best[0].horizon == best
    assert advice in reports.verdict(found)[-1]


def test_what_cannot_be_told_from_the_best_is_named(tmp_path: Path) -> None:
    good, near, bad = "S" * 12, "S" * 10 + "FF", "F" * 12
    found = swept(tmp_path, {8: bad, 12: near, 16: good, 20: "." * 12})
    text = " ".join(reports.verdict(found))
    assert "Best: a-h16, 12 of 12 episodes, 100.0 % (95 % interval 75.8 to 100.0 %)." in text
    assert "Not distinguishable from it on equal episodes: a-h12. It was chosen among 3" in text
    assert text.startswith("No record yet: a-h20.")
    lines = (tmp_path / "report" / "sweep.csv").read_text().splitlines()
    assert lines[1].startswith("a-h08,/weights/a,,8,libero_object,0,12,0.0,")
    done = rdtl("report", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Best: a-h16, 12 of 12 episodes" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert "execution_horizon" in (tmp_path / "report" / "index.html").read_text()


def test_half_way_cells_may_have_no_episode_in_common(tmp_path: Path) -> None:
    found = swept(tmp_path, {8: "SSS...", 16: "...FFF", 20: "SF...."})
    assert [pair.second_name for pair in found.pairs()] == ["a-h20"]
    torn = tmp_path / "cells" / "a-h16" / "records"
    for path in torn.glob("part-*"):
        path.write_bytes(b'{"policy"')  # killed in its first line
    assert reports.load(found.run).without == ("a-h16",)


def test_each_suite_has_its_best(tmp_path: Path) -> None:
    suites = {"libero_goal": [0], "libero_object": [0]}
    asked = {"suites": suites, "init_states": (30, 32), "checkpoint": "/weights/a"}
    config = data_of({"policies": ["rdt"], **asked}, horizons=[8, 16])
    files.write_json(tmp_path / "plan.json", {"name": "s", "site": "local", "config": config})
    for cell in sweeps.cells(config):
        run = runs.new_run(
            tmp_path / "cells" / cell.name, **sweeps.section(config, cell)["evaluate"]
        )
        good = "libero_goal" if cell.horizon == 8 else "libero_object"
        for suite in suites:
            status = "success" if suite == good else "fail"
            runs.add(run, [runs.record(run, "rdt", s, status, suite=suite) for s in (30, 31)])
    text = " ".join(reports.verdict(reports.build(tmp_path)))
    assert "libero_goal: best a-h08, 2 of 2" in text
    assert "libero_object: best a-h16, 2 of 2" in text


def test_another_contract_is_for_adopted_weights_alone() -> None:
    pytest.importorskip("torch")
    from rdt.policy.loading import contract_of
    from rdt.spec.card import Training
    from rdt.spec.contract import LIBERO_RAW_VELOCITY
    from tests.rdt import small_policy

    adopted = small_policy.card(LIBERO_RAW_VELOCITY)
    assert contract_of(adopted, None, "card.json") is LIBERO_RAW_VELOCITY
    assert contract_of(adopted, "libero-eef6d", "card.json").name == "libero-eef6d"
    for name in ("libero-velocity", "no-such"):  # it normalises; it is none
        with pytest.raises(RefusedError, match="RDTL-T012"):
            contract_of(adopted, name, "card.json")
    training = Training(1, 0, 32, "", "libero_object", "", 1, 1)
    trained = replace(adopted, origin="trained", training=training)
    assert contract_of(trained, LIBERO_RAW_VELOCITY.name, "card.json") is LIBERO_RAW_VELOCITY
    with pytest.raises(RefusedError, match="RDTL-E071"):
        contract_of(trained, "libero-eef6d", "card.json")


def training(root: Path) -> RunDir:
    """A training of which nothing lives."""
    run = RunDir(root)
    stage = Stage("train", ("true",), own_code=False, memory_mb=50, minutes=1)
    create(run, Plan("t", "local", (stage,), {"command": ["true"]}), "name: t\n")
    return run


def add_step(run: RunDir, step: int) -> Path:
    folder = run.checkpoints / f"step_{step:06d}"
    (folder / "policy").mkdir(parents=True)
    for name in ("card.json", "model.safetensors"):
        (folder / "policy" / name).write_text(json.dumps(step))
    return folder


def test_following_keeps_what_the_training_removes(tmp_path: Path) -> None:
    run = training(tmp_path / "run")
    add_step(run, 500)
    (run.checkpoints / "step_000700").mkdir()  # without a policy it is none
    found = following.checkpoints(run.root, poll_s=0.01)
    first = next(found)
    (run.checkpoints / "step_000500").rename(run.checkpoints / ".tmp-old")
    add_step(run, 1000)
    second = next(found)
    assert [p.name for p in (first, second)] == ["step_000500", "step_001000"]
    assert (first / "model.safetensors").read_text() == "500"
    assert list(found) == []  # nothing lives any more
    assert [p.name for p in following.checkpoints(run.root)] == ["step_000500", "step_001000"]
    run.policy.mkdir()
    (run.policy / "card.json").touch()
    assert list(following.checkpoints(run.root))[2:] == [run.policy]


def test_nothing_to_follow(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="RDTL-E072"):
        list(following.checkpoints(training(tmp_path / "run").root))


@pytest.mark.slow
def test_a_horizon_beyond_the_chunk_is_refused_before_anything_runs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.rdt import small_policy

    policy = small_policy.trained_folder(tmp_path)
    done = rdtl("sweep", "smoke", "--checkpoint", str(policy), "--dry-run", cwd=tmp_path)
    assert done.returncode == 2
    assert f"RDTL-E074: of a chunk of {small_policy.HORIZON} actions 64 cannot be" in done.stderr
    assert "--horizons 8" in done.stderr


@pytest.mark.slow
@pytest.mark.sim
def test_a_sweep_of_a_real_policy(tmp_path: Path) -> None:
    from tests.rdt import small_policy

    policy = small_policy.trained_folder(tmp_path)
    asked = ["evaluate.init_states=[0,2]", "evaluate.suites={libero_object: [0]}"]
    asked += ["task.max_steps=9", "task.camera_size=64"]
    done = rdtl(
        *("sweep", "smoke", "--checkpoint", str(policy), "--horizons", "2,4", "--shards", "3"),
        *(word for setting in asked for word in ("--set", setting)),
        *("--runtime", "none", "--jobs", "1"),
        cwd=tmp_path,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "0/2" in done.stdout and "train again" in done.stdout
    run = RunDir(tmp_path / "runs" / "sweep-evaluate-smoke-local")
    found = {cell.name: report for cell, report in reports.load(run).cells}
    queries = {name: [r.queries for r in report.records()] for name, report in found.items()}
    assert list(queries.values()) == [[5, 5], [3, 3]]
    with pytest.raises(RdtlError):
        reports.load(RunDir(tmp_path))
