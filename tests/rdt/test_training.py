"""The parts of training that are functions: schedule, average, batches, loss, records, identity."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import save_file

from jobs import dataset, train
from launcher.core.errors import RdtlError
from launcher.core.job import Job
from rdt.data import statistics
from rdt.diffusion import add_noise
from rdt.model.policy_network import build, config_from_run
from rdt.model.trainable import Batch
from rdt.spec.contract import LIBERO_VELOCITY
from rdt.training import ema, schedule
from rdt.training.batches import Batches, shift_pictures
from rdt.training.data import Data
from rdt.training.fragments import Fragment
from rdt.training.loop import require_finite
from rdt.training.record import kept_lines
from tests.rdt import golden, synthetic

pytestmark = pytest.mark.train


@pytest.fixture
def job(tmp_path: Path) -> Job:
    synthetic.write_plan(tmp_path)
    synthetic.write_parts(tmp_path / "data/parts", 3)
    job = Job.from_environment(str(tmp_path))
    dataset.body(job)
    return job


def batches(job: Job, rank: int = 0, ranks: int = 2, **settings: Any) -> Batches:
    described = statistics.read(job.run.data / "statistics.json")
    settings = job.config["train"] | settings
    return Data(job.run, job.config | {"train": settings}, described, rank, ranks).training()


def test_warm_up_then_cosine() -> None:
    rates = [schedule.learning_rate(step, 100, 1.0, 10) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert rates[-1] < 0.001


def test_a_time_budget_leaves_the_first_steps_alone() -> None:
    """Until the length is measured the rate must not need it."""
    warmup = schedule.warmup_steps(3, minutes=1.0)
    for step in range(schedule.MEASURE_TO):
        known = schedule.learning_rate(step, 1000, 1.0, warmup)
        assert schedule.learning_rate(step, None, 1.0, warmup) == known
    with pytest.raises(ValueError, match="length"):
        schedule.learning_rate(schedule.MEASURE_TO, None, 1.0, warmup)
    assert schedule.steps_for(2.0, 5.0) == 600
    assert schedule.steps_for(0.001, 5.0) == schedule.MEASURE_TO + 1


def test_average_as_recorded() -> None:
    recorded = json.loads((golden.DATA / "ema.json").read_text())
    module = torch.nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(recorded["init"]))
    average = ema.Ema(whole(module), recorded["config"]["power"])
    for step in recorded["steps"]:
        assert ema.decay(average.calls, 0.75) == pytest.approx(step["decay"], abs=1e-12)
        with torch.no_grad():
            module.weight.copy_(torch.tensor(step["new"]))
        average.update()
        (found,) = average.fragments
        assert golden.distance(found.values, torch.tensor(step["ema"]).flatten()) < 1e-6
    for calls, decay in recorded["decay_at"].items():
        assert ema.decay(int(calls), 0.75) == pytest.approx(decay, abs=1e-12)


def test_average_is_restored_from_whole_tensors(tmp_path: Path) -> None:
    """By a rank that owns the middle of a parameter, with its count."""
    module = torch.nn.Linear(4, 4, bias=False)
    save_file({"weight": module.weight.detach()}, tmp_path / "average.safetensors")
    other = ema.Ema([Fragment("weight", 3, torch.zeros(6))], 0.75)
    other.load(tmp_path / "average.safetensors", 5)
    assert other.calls == 5
    assert torch.equal(other.fragments[0].values, module.weight.detach().flatten()[3:9])
    with pytest.raises(SafetensorError):
        ema.Ema([Fragment("bias", 0, torch.zeros(4))], 0.75).load(
            tmp_path / "average.safetensors", 5
        )


def whole(module: torch.nn.Module) -> list[Fragment]:
    """What a rank owns that is alone."""
    return [Fragment(name, 0, p.detach().view(-1)) for name, p in module.named_parameters()]


def test_batches_are_functions_of_the_step(job: Job) -> None:
    one = batches(job)
    first = Batch(*(part.clone() for part in one.micro(7, 0)))
    one.micro(3, 0)
    again = one.micro(7, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (batches(job).micro(8, 0), batches(job, rank=1).micro(7, 0)):
        assert not torch.equal(first.noise, other.noise)
        assert not torch.equal(first.pictures, other.pictures)


def test_padding_has_no_weight_and_the_rest_adds_up_to_one(job: Job) -> None:
    for step in range(6):
        micros = [batches(job, rank).micro(step, 0) for rank in range(2)]
        assert float(sum(batch.weight.sum() for batch in micros)) == pytest.approx(1.0)
    one = batches(job, ranks=1, micro_batch=24, effective_batch=24)  # 8 of each of 24 steps
    real = (one.micro(0, 0).weight > 0).sum(dim=1).tolist()
    assert real == 3 * [8, 8, 8, 8, 8, 8, 6, 3], "in file order, a picture every three steps"


def samples(batch: Batch) -> list[bytes]:
    """All that a batch says of each of its samples."""
    draws = len(batch.noise) // len(batch.actions)
    parts = [batch.pictures, batch.words, batch.word_valid, batch.state, batch.mask, batch.freq]
    parts.append(batch.actions)
    parts += [batch.weight, batch.noise.unflatten(0, (-1, draws)), batch.t.view(-1, draws)]
    rows = range(len(batch.actions))
    return [b"".join(part[row].numpy().tobytes() for part in parts) for row in rows]


def test_any_number_of_ranks_trains_on_the_same_samples(job: Job) -> None:
    """With their noise, their shifts and what is left out, whoever prepares them."""
    changed = {"image_shift_px": 3, "condition_dropout": 0.3, "state_noise_db": 10.0}
    changed["augmentation"] = 0.5
    alone = batches(job, ranks=1, micro_batch=4, **changed)
    halves = [batches(job, rank, **changed) for rank in range(2)]
    slow = batches(job, ranks=1, accumulation=2, **changed)
    for step in range(9):  # over the end of an epoch
        expected = sorted(samples(alone.micro(step, 0)))
        assert len(set(expected)) == 4
        both = [sample for half in halves for sample in samples(half.micro(step, 0))]
        assert sorted(both) == expected
        assert sorted(sample for part in slow.step(step) for sample in samples(part)) == expected


@pytest.mark.parametrize(
    ("loss", "slots"),
    [("valid", [10, *range(30, 45)]), ("all", range(128))],
)
def test_loss_is_the_plain_mean_over_real_steps(job: Job, loss: str, slots: Sequence[int]) -> None:
    """Against a loop over samples and draws that repeats the pictures for each draw."""
    described = statistics.read(job.run.data / "statistics.json")
    network = build(
        config_from_run(job.config["train"]["model"], 64, LIBERO_VELOCITY), LIBERO_VELOCITY, "test"
    )
    torch.nn.init.normal_(network.model.final_layer.ffn_final.fc2.weight, std=0.1)
    batch = batches(job, ranks=2, loss=loss).micro(3, 0)
    total = torch.zeros(())
    draws = len(batch.noise) // len(batch.actions)
    for row in range(len(batch.noise)):
        index = slice(row // draws, row // draws + 1)
        words, valid = batch.words[index], batch.word_valid[index]
        keys = network.condition(batch.pictures[index], words, valid)
        t, clean = batch.t[row : row + 1], batch.actions[index]
        noisy = add_noise(network.alphas, clean, batch.noise[row : row + 1], t)
        predicted = network.denoise(batch.state[index], noisy, network.mask, network.freq, t, keys)
        error = (predicted - clean).square()[..., slots].mean(-1)
        total = total + (error * batch.weight[index]).sum() / draws
    assert golden.distance(network(batch), total) <= 1e-5
    assert described.windows == 24


@given(st.integers(1, 6), st.integers(0, 2**32))
def test_shifts_move_pictures_as_a_whole(pixels: int, seed: int) -> None:
    """To the place that the shares say, the ends of their range included."""
    random = np.random.default_rng(seed)
    picture = random.permutation(16 * 16 * 3).astype(np.uint16).reshape(16, 16, 3)
    padded = np.pad(picture, ((pixels,) * 2, (pixels,) * 2, (0, 0)), mode="edge")
    almost_one = np.nextafter(1.0, 0.0)
    shares = np.array([[[0.0, 0.0], [almost_one, almost_one], *random.random((4, 2))]])
    places = np.floor(shares[0] * (2 * pixels + 1)).astype(int)  # 0 is -pixels
    assert places[:2].tolist() == [[0, 0], [2 * pixels, 2 * pixels]]
    pictures = np.broadcast_to(picture, (1, len(places), *picture.shape))
    for (down, right), shifted in zip(
        places, shift_pictures(pictures, pixels, shares)[0], strict=True
    ):
        assert np.array_equal(shifted, padded[down : down + 16, right : right + 16])


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops(loss: float) -> None:
    with pytest.raises(RdtlError, match="step 12") as caught:
        require_finite("loss", loss, 12)
    assert caught.value.problem.code == "RDTL-T018"
    require_finite("loss", 0.5, 12)


def test_lines_of_steps_to_be_repeated_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in range(1, 6)) + '{"step": 6')
    assert [json.loads(line)["step"] for line in kept_lines(path, 3)] == [1, 2, 3]
    assert kept_lines(tmp_path / "none.jsonl", 3) == []


def test_settings_that_change_numbers_change_the_digest(job: Job) -> None:
    before = train.settings_digest(job.config)
    job.config["train"]["log_every"] += 1
    job.config["train"].update(zero_stage=2, micro_batch=1, accumulation=4, ranks_per_node=1)
    assert train.settings_digest(job.config) == before
    job.config["train"].update(validate_every=7, validation_batches=1)
    assert train.settings_digest(job.config) == before
    job.config["train"]["early_stopping"] = 3
    stopping = train.settings_digest(job.config)
    job.config["train"]["validate_every"] = 8  # decides where the training ends, then
    assert len({before, stopping, train.settings_digest(job.config)}) == 3
    job.config["train"]["early_stopping"] = None
    job.config["dataset"]["order"] = "random"
    assert (other := train.settings_digest(job.config)) != before
    job.config["train"]["learning_rate"] *= 2
    assert train.settings_digest(job.config) not in (before, other)
