"""Which slots the loss counts, and that the transforms of the configuration reach the batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from jobs import dataset
from launcher.core.errors import UsageError
from launcher.core.job import Job
from launcher.schema import RunConfig
from rdt.data import statistics
from rdt.model.trainable import Batch
from rdt.spec.contract import LIBERO_RAW_VELOCITY, LIBERO_VELOCITY
from rdt.spec.loss import slot_weights
from rdt.training.batches import Batches
from rdt.training.data import Data
from tests.rdt import synthetic

VELOCITY = "end-effector linear velocity"


def test_valid_slots_are_those_of_the_mask() -> None:
    shares = slot_weights(LIBERO_VELOCITY, "valid", {})
    assert [slot for slot, share in enumerate(shares) if share] == [10, *range(30, 45)]
    assert sum(shares) == pytest.approx(1)
    raw = slot_weights(LIBERO_RAW_VELOCITY, "valid", {})
    assert [slot for slot, share in enumerate(raw) if share] == [10, *range(39, 45)]
    assert slot_weights(LIBERO_VELOCITY, "all", {}) == [1 / 128] * 128


def test_groups_are_weighted_by_name() -> None:
    shares = slot_weights(LIBERO_VELOCITY, "valid", {VELOCITY: 3})
    assert shares[39] == pytest.approx(3 * shares[42]) == pytest.approx(3 / 22)
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("weights", [{"end-effector linear velocty": 2}, {"gripper": 1}])
def test_an_unknown_group_is_refused_before_anything_starts(weights: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="RDTL-T063") as caught:
        RunConfig(name="x", train={"loss_weights": weights})
    assert VELOCITY in str(caught.value)


def test_shipped_demos_keep_the_loss_that_they_were_tuned_with() -> None:
    from launcher import config

    for kind, name in (("demo", "default"), ("demo", "quick"), ("demo", "wide"), ("train", "demo")):
        found = config.load_run_config(config.find(kind, name), [], ["train"])
        assert found.train is not None and found.train.loss == "all", name


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("run")
    synthetic.write_plan(folder)
    synthetic.write_parts(folder / "data/parts", 3)
    made = Job.from_environment(str(folder))
    dataset.body(made)
    return made


def batches(job: Job, **settings: Any) -> Batches:
    described = statistics.read(job.run.data / "statistics.json")
    config = job.config | {"train": job.config["train"] | settings}
    return Data(job.run, config, described, 0, 1).training()


def micro(job: Job, **settings: Any) -> Batch:
    batch = batches(job, micro_batch=4, effective_batch=4, **settings).micro(0, 0)
    return Batch(*(part.clone() for part in batch))


def test_dropped_conditions_say_nothing_and_the_target_stays(job: Job) -> None:
    plain, dropped = micro(job), micro(job, condition_dropout=1.0)
    assert (dropped.pictures == 127).all() and not (plain.pictures == 127).all()
    assert dropped.state.abs().max() < 1e-5, "the mean of the data"
    for part in (dropped.mask, dropped.freq, dropped.words):
        assert not part.any()
    assert (dropped.word_valid.sum(dim=1) == 1).all(), "attention needs something to look at"
    assert plain.mask.any() and plain.words.any() and (plain.freq == 20).all()
    for name in ("actions", "weight", "noise", "t"):
        assert torch.equal(getattr(plain, name), getattr(dropped, name)), name


def test_the_first_camera_can_be_spared(job: Job) -> None:
    pictures = micro(job, condition_dropout=1.0, external_camera_dropout=0.0).pictures
    assert torch.equal(pictures[:, 0], micro(job).pictures[:, 0])
    assert (pictures[:, 1] == 127).all()


def test_noise_on_the_state_has_the_asked_size(job: Job) -> None:
    loud, quiet = micro(job, state_noise_db=10.0), micro(job, state_noise_db=30.0)
    plain = micro(job)
    used = plain.state.abs().sum(dim=(0, 1)) > 0
    ratio = (loud.state - plain.state)[..., used] / (quiet.state - plain.state)[..., used]
    moved = ratio[ratio.isfinite()]
    assert len(moved) and moved.median() == pytest.approx(10.0, rel=0.01)
    assert torch.equal(loud.pictures, plain.pictures)


def test_augmentation_changes_pictures_alone(job: Job) -> None:
    plain, changed = micro(job), micro(job, augmentation=1.0)
    assert not torch.equal(plain.pictures, changed.pictures)
    assert torch.equal(plain.state, changed.state)
    assert torch.equal(plain.actions, changed.actions)
