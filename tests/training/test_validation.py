"""Held-out demonstrations, rounds of sampling, the best checkpoint, early stopping."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs import dataset
from launcher.core import files
from launcher.core.errors import RefusedError, UsageError
from launcher.core.job import Job
from launcher.schema import RunConfig
from rdt.data import statistics
from rdt.data.recording import Episode
from rdt.spec.contract import CONTRACTS, LIBERO_VELOCITY
from rdt.training import held_out
from rdt.training.chunk_plot import chunk_plot
from rdt.training.data import Data
from rdt.training.validation import EarlyStopping, errors, squared_errors
from tests.rdt import synthetic
from tests.training import ranks


def sets_of(*sizes: int) -> list[list[Episode]]:
    """Data sets of so many demonstrations each, a file a set."""
    return [
        [Episode(Path(f"/set_{k}.hdf5"), f"demo_{i}", "", "", 1) for i in range(size)]
        for k, size in enumerate(sizes)
    ]


@pytest.mark.parametrize(
    ("sizes", "share", "count"), [((10, 10), 3, 3), ((10, 10), 0.25, 5), ((20,), 19, 19)]
)
def test_a_number_or_a_share_is_held_out(sizes: tuple[int, ...], share: float, count: int) -> None:
    chosen = held_out.choose(sets_of(*sizes), share, seed=7)
    assert sum(int(held.sum()) for held in chosen) == count
    again = held_out.choose(sets_of(*sizes), share, seed=7)
    assert all(np.array_equal(a, b) for a, b in zip(chosen, again, strict=True))


def test_a_run_keeps_what_it_held_out() -> None:
    """Drawn once and for all: a run that is continued must not learn what it validated on."""
    found = [np.flatnonzero(held).tolist() for held in held_out.choose(sets_of(10, 6), 5, seed=7)]
    assert found == [[0, 6, 8], [1, 3]]


def test_another_seed_holds_out_others() -> None:
    sets = {held_out.choose(sets_of(50), 5, seed)[0].tobytes() for seed in range(20)}
    assert len(sets) == 20


def test_what_two_sets_name_is_held_out_of_both(tmp_path: Path) -> None:
    """Else it would be learned through the other; a link is another name of the same file."""
    (whole,) = sets_of(10)
    (tmp_path / "link.hdf5").symlink_to(whole[0].file)
    part = [replace(e, file=tmp_path / "link.hdf5") for e in whole[2:9]]
    other = sets_of(1, 4)[1]
    for seed in range(20):
        first, second, third = held_out.choose([whole, part, other], 0.3, seed)
        assert first[2:9].tolist() == second.tolist()
        assert first.sum() + third.sum() == 4, "of 14 demonstrations"


@pytest.mark.parametrize(("sizes", "share"), [([10], 0.01), ([10], 10), ([1, 30], 28)])
def test_what_leaves_nothing_is_refused(sizes: list[int], share: float) -> None:
    with pytest.raises(RefusedError, match="RDTL-T064"):
        for seed in range(20):
            held_out.choose(sets_of(*sizes), share, seed)


def test_physical_units_of_every_contract() -> None:
    units = {
        name: [part.physical for part in contract.action] for name, contract in CONTRACTS.items()
    }
    assert units["libero-velocity"] == [(1.0, "1"), (0.05, "m"), (0.5, "rad")]
    assert units["libero-eef6d"][1] == (pytest.approx(1.0), "cm")
    assert units["libero-eef6d-metres"][1] == (pytest.approx(1.0), "m")


def test_errors_are_those_of_real_steps_in_physical_units(tmp_path: Path) -> None:
    batch = data(tmp_path).training(plain=True).micro(0, 0)
    off = batch.actions.clone()
    off[:, :, 39:42] += 0.2  # of 5 cm
    off[batch.weight == 0] = 1e6  # behind the end of an episode
    found = errors("x", LIBERO_VELOCITY, squared_errors(LIBERO_VELOCITY, batch, off))
    assert found["x/error/end-effector linear velocity (m)"] == pytest.approx(0.01)
    assert found["x/error/end-effector angular velocity, rotation vector (rad)"] == 0
    assert found["x/sample_mse"] == pytest.approx(3 * 0.04 / 7)


def data(folder: Path, **dataset_settings: Any) -> Data:
    changes = {"dataset": dataset_settings} if dataset_settings else {}
    alone = {"micro_batch": 4, "ranks_per_node": 1}
    config = synthetic.write_plan(folder, changes=changes, **alone)
    synthetic.write_parts(folder / "data/parts", 3)
    job = Job.from_environment(str(folder))
    dataset.body(job)
    described = statistics.read(job.run.data / "statistics.json")
    return Data(job.run, config, described, 0, 1)


def test_nothing_held_out_is_learned(tmp_path: Path) -> None:
    """By the actions themselves: each demonstration's are its own."""
    found = data(tmp_path, held_out=1)
    assert found.held_out

    def chunks(batches: Any) -> set[bytes]:
        rows = (batches.micro(step, 0).actions for step in range(2 * batches.whole_batches))
        return {row.numpy().tobytes() for part in rows for row in part}

    learned, kept = chunks(found.training()), chunks(found.validation())
    assert learned and kept and not learned & kept
    everything = chunks(data(tmp_path / "all").training())
    assert learned | kept == everything


@pytest.mark.parametrize(
    "wants",
    [{"train": {"early_stopping": 3}}, {"train": {"keep_best": "validation_loss"}}],
)
def test_what_needs_validation_is_refused_without(wants: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="RDTL-T065"):
        RunConfig(name="x", **wants)
    buffered = {"held_out": 2, "buffer": "/some/where"}
    with pytest.raises(UsageError, match="RDTL-T065") as refused:
        RunConfig(name="x", train={"validate_every": 500}, dataset=buffered)
    assert refused.value.problem.fix == "leave dataset.buffer out, or set dataset.held_out=0"
    wants["train"]["validate_every"] = 500
    RunConfig(name="x", dataset={"held_out": 0.1}, **wants)


@pytest.mark.parametrize(
    ("every", "refused"), [(400, True), (1000, True), (500, False), (250, False)]
)
def test_the_best_is_chosen_among_all_checkpoints(every: int, refused: bool) -> None:
    """A checkpoint gets a score where a round follows it; others could never be the best."""
    train = {"keep_best": "validation_loss", "checkpoint_every": 500, "validate_every": every}
    config = {"name": "x", "dataset": {"held_out": 0.1}, "train": train}
    if refused:
        with pytest.raises(UsageError, match="RDTL-T065: keep_best needs train"):
            RunConfig(**config)
        return
    RunConfig(**config)
    train.update(keep_best=None, early_stopping=3, validate_every=400)
    RunConfig(**config)


def test_early_stopping_counts_rounds_without_a_lower_loss() -> None:
    losses = [5.0, 4.0, 4.5, 3.9, 3.9, 4.0, math.nan, 1.0]
    patient = EarlyStopping(3, [])
    assert [patient.after(loss) for loss in losses].index(True) == 6
    resumed = EarlyStopping(3, losses[:5])
    assert [resumed.after(loss) for loss in losses[5:7]] == [False, True]
    assert not any(EarlyStopping(None, losses).after(9.0) for _ in range(9))


def test_a_plot_stands_alone_and_holds_both_lines() -> None:
    true = np.linspace(-1, 1, 16 * 128, dtype=np.float32).reshape(16, 128)
    sampled = true.copy()
    sampled[3, 39] = np.nan
    svg = chunk_plot("Step 5: <train>", LIBERO_VELOCITY, true, sampled)
    assert svg.count('class="true" points') == svg.count('class="sampled" points') == 7
    assert "&lt;train&gt;" in svg and "nan" not in svg
    lines = re.findall(r'points="([^"]*)"', svg)
    assert sorted({len(line.split()) for line in lines}) == [15, 16]


def trained(run: Path, count: int, **train: object) -> list[dict[str, Any]]:
    """A run of twelve steps with one of three demonstrations held out; its record."""
    changes = {"steps": 12, "checkpoint_every": 4, "log_every": 1, **train}
    synthetic.write_plan(run, changes={"dataset": {"held_out": 1}, "train": changes})
    synthetic.write_parts(run / "data/parts", 3)
    dataset.body(Job.from_environment(str(run)))
    ranks.run(count, "jobs.train", run)
    return [json.loads(line) for line in (run / "checkpoints/metrics.jsonl").open()]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    run = tmp_path_factory.mktemp("watched")
    best = {"keep_best": "validation_loss", "keep_checkpoints": 1}
    return run, trained(run, 2, validate_every=4, **best)


def test_rounds_are_recorded_apart_from_checkpoints(
    watched: tuple[Path, list[dict[str, Any]]],
) -> None:
    run, lines = watched
    rounds = {line["step"]: line for line in lines if "validation/loss" in line}
    assert list(rounds) == [5, 9, 12]
    for line in rounds.values():
        assert 0 < line["train/sample_mse"] < 10 and 0 < line["validation/sample_mse"] < 10
        assert 0 < line["validation/error/end-effector linear velocity (m)"] < 0.5
    assert sorted(p.name for p in (run / "plots").iterdir()) == [
        "step_000005.svg", "step_000009.svg", "step_000012.svg",
    ]  # fmt: skip
    scores = {
        step: files.read_json(run / f"checkpoints/scores/step_{step:06d}.validation_loss.json")
        for step in (4, 8)
    }
    assert scores[4]["value"] == rounds[5]["validation/loss"]
    assert scores[8]["value"] == rounds[9]["validation/loss"]
    steps = [line for line in lines if "train/loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 13))
    assert {"train/lr", "train/data_wait", "train/samples_per_second", "system/utilisation"} <= set(
        steps[-1]
    )


def test_the_card_counts_what_was_learned_and_not_what_was_held_out(
    watched: tuple[Path, list[dict[str, Any]]],
) -> None:
    run, _ = watched
    for folder in (run / "policy", run / "checkpoints/step_000008/policy"):
        found = files.read_json(folder / "card.json")["training"]
        assert (found["demonstrations"], found["windows"]) == (2, 16), folder
        assert found["task"] == synthetic.TASK


def test_rounds_change_nothing(watched: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    _, lines = watched
    unwatched = trained(tmp_path / "alone", 1, micro_batch=4, ranks_per_node=1)
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    alone = [line["train/loss"] for line in unwatched if "train/loss" in line]
    assert losses == pytest.approx(alone, rel=1e-5)
    (last,) = [line for line in unwatched if "validation/loss" in line]
    both = next(line for line in lines if line["step"] == 12 and "validation/loss" in line)
    assert last["step"] == 12
    assert last["validation/loss"] == pytest.approx(both["validation/loss"], rel=1e-4)


@pytest.mark.slow
def test_rounds_under_zero_3_in_bf16_change_nothing(tmp_path: Path) -> None:
    settings = {"zero_stage": 3, "dtype": "bf16"}
    plain = trained(tmp_path / "plain", 2, **settings)
    watched = trained(tmp_path / "watched", 2, validate_every=2, **settings)
    assert [line["train/loss"] for line in plain if "train/loss" in line] == [
        line["train/loss"] for line in watched if "train/loss" in line
    ]


@pytest.mark.slow
def test_training_ends_when_the_validation_loss_rises(tmp_path: Path) -> None:
    lines = trained(
        tmp_path, 1, validate_every=1, early_stopping=2, micro_batch=4, ranks_per_node=1,
        learning_rate=1.0, warmup_steps=0, steps=60,
    )  # fmt: skip
    losses = [line["validation/loss"] for line in lines if "validation/loss" in line]
    last = lines[-1]["step"]
    assert last < 60
    assert min(losses) == losses[-3]
    card = json.loads((tmp_path / "policy/card.json").read_text())
    assert card["training"]["steps"] == last
    assert torch.tensor(losses).isfinite().all()
