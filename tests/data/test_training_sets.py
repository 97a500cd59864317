"""A list of data sets trains, from each layout alike; what does not fit is refused before."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import buffer, dataset
from launcher.core.errors import RdtlError
from launcher.core.job import Job
from launcher.schema import DataSet
from rdt.data import statistics
from rdt.model.trainable import Batch
from rdt.training.batches import Batches
from rdt.training.data import Data
from tests.data import writers
from tests.data.test_buffer_command import request
from tests.data.writers import Demo
from tests.rdt import synthetic
from tests.rdt.test_resume import finish, start

pytestmark = pytest.mark.train
OTHER = "pick up the can and put it into the basket"
Write = Callable[[list[Demo], Path], Path]


def hdf5(demos: list[Demo], folder: Path) -> Path:
    folder.mkdir(parents=True)
    writers.write_regenerated(demos, folder)
    return folder


def rlds(demos: list[Demo], folder: Path) -> Path:
    return writers.write_rlds([writers.rlds_episode(demo) for demo in demos], folder, shards=1)


LAYOUTS: dict[str, Write] = {
    "hdf5": hdf5,
    "rlds": rlds,
    "lerobot2": writers.write_lerobot2,
    "lerobot3": writers.write_lerobot3,
}


def two_sets(demos: list[Demo], write: Write, folder: Path) -> list[dict[str, Any]]:
    """Of the collected episodes: the second of two, twice an epoch, and, in other words, both,
    in which half of the samples come."""
    other = [replace(d, task=OTHER.replace(" ", "_"), instruction=OTHER) for d in demos]
    return [
        entry(write(demos, folder / "one"), demos=[1], weight=2.0),
        entry(write(other, folder / "two"), weight=0.5),
    ]


def entry(path: Path, **choice: Any) -> dict[str, Any]:
    return DataSet(path=str(path), **choice).model_dump(mode="json")


def run_on(folder: Path, sets: list[dict[str, Any]], **settings: Any) -> Job:
    """A run directory whose plan trains on ``sets``."""
    config = {"collect": None, "dataset": {"sets": sets, **settings}}
    alone = {"micro_batch": 4, "ranks_per_node": 1, "image_shift_px": 2, "warmup_steps": 2}
    synthetic.write_plan(folder, steps=3, log_every=1, changes=config, **alone)
    return Job.from_environment(str(folder))


def opened(job: Job) -> Batches:
    dataset.body(job)
    described = statistics.read(job.run.data / "statistics.json")
    return Data(job.run, job.config, described, 0, 1).training()


@pytest.mark.parametrize(
    "layout", ["rlds", pytest.param("lerobot2", marks=pytest.mark.slow), "lerobot3"]
)
def test_copies_give_the_same_batches(layout: str, demos: list[Demo], tmp_path: Path) -> None:
    """Bit for bit where pictures are lossless; JPEG alone may differ, and in pictures alone."""
    sides = {
        name: run_on(tmp_path / f"run {name}", two_sets(demos, LAYOUTS[name], tmp_path / name))
        for name in ("hdf5", layout)
    }
    with opened(sides["hdf5"]) as ours, opened(sides[layout]) as theirs:
        for step in range(12):
            for name, a, b in zip(
                Batch._fields, ours.micro(step, 0), theirs.micro(step, 0), strict=True
            ):
                if layout == "rlds" and name == "pictures":
                    assert np.abs(a.numpy().astype(int) - b.numpy()).mean() < 3
                else:
                    np.testing.assert_array_equal(a, b, err_msg=name)
    texts = [(job.run.data / "statistics.json").read_text() for job in sides.values()]
    assert texts[0].replace(str(tmp_path / "hdf5"), str(tmp_path / layout)) == texts[1]


def test_weights_demonstrations_and_words_of_each_set(demos: list[Demo], tmp_path: Path) -> None:
    """An epoch: each step of one demonstration twice, half of the steps of the other set."""
    job = run_on(tmp_path / "run", two_sets(demos, hdf5, tmp_path))
    with opened(job) as batches:
        one, other = len(demos[1]), sum(map(len, demos))
        epoch = 2 * one + round(other / 2)
        sampler, index = batches._sampler, batches._source.index
        counts = np.bincount(sampler.order.at(np.arange(2 * epoch)), minlength=one + other)
        assert set(counts[:one]) == {4} and counts[one:].max() == 1
        assert counts[one:].sum() == 2 * round(other / 2)
        steps = range(epoch // 4)
        words = [sum(batches.micro(step, 0).word_valid.sum(dim=1).tolist()) for step in steps]
        lengths = {text: len(text.split()) for text in (demos[0].instruction, OTHER)}
        taken = index.steps(sampler.order.at(np.arange(4 * len(steps)))) < one
        expected = np.where(taken, lengths[demos[0].instruction], lengths[OTHER])
        assert words == expected.reshape(-1, 4).sum(axis=1).tolist()
    assert batches._source.instructions == [demos[0].instruction, OTHER, OTHER]


@pytest.mark.slow
def test_training_from_a_copy_ends_in_the_same_policy(demos: list[Demo], tmp_path: Path) -> None:
    policies = []
    for name in ("hdf5", "lerobot2"):
        run = tmp_path / name  # the sets lie inside: the image sees nothing else
        job = run_on(run, two_sets(demos, LAYOUTS[name], run / "sets"))
        dataset.body(job)
        finish(start(job.run.root, ranks=1), job.run.root)
        policies.append({path.name: path.read_bytes() for path in job.run.policy.iterdir()})
    assert policies[0].keys() >= {"model.safetensors", "card.json"}
    assert policies[0] == policies[1]


@pytest.mark.parametrize("seed", [7, 8])
def test_a_buffer_stands_for_the_sets(seed: int, demos: list[Demo], tmp_path: Path) -> None:
    """The same batches bit for bit; a buffer of another seed is another order of samples."""
    path, folder = rlds(demos, tmp_path / "set"), tmp_path / "buffer"
    plain = run_on(tmp_path / "plain", [entry(path)])
    horizon = plain.config["train"]["model"]["horizon"]
    wanted = {"moments": 1, "horizon": horizon, "lengths": [1, 2048], "seed": seed}
    wanted["contract"] = "libero-velocity"
    buffer.produce(request(path, folder, **wanted))
    job = run_on(tmp_path / "buffered", [entry(path)], buffer=str(folder))
    assert job.config["seed"] == 7
    if seed != 7:
        error = refused(job)
        assert error.problem.code == "RDTL-D044" and "order" in error.problem.where
        return
    with opened(plain) as ours, opened(job) as theirs:
        for step in range(6):
            for a, b in zip(ours.micro(step, 0), theirs.micro(step, 0), strict=True):
                np.testing.assert_array_equal(a, b)
    assert (folder / "consumer_0.json").is_file()


def refused(job: Job) -> RdtlError:
    with pytest.raises(RdtlError) as error, opened(job):
        pass
    return error.value


@pytest.mark.parametrize(
    ("choice", "code"),
    [
        ({"gripper_open": 1}, "RDTL-D016"),
        ({"alignment": "after"}, "RDTL-D027"),
        ({"demos": [7]}, "RDTL-D033"),
        ({"tasks": ["close the drawer"]}, "RDTL-D033"),
    ],
)
def test_a_set_that_is_not_what_is_declared(
    choice: dict[str, Any], code: str, lerobot2: Path, demos: list[Demo], tmp_path: Path
) -> None:
    """The second of two; nothing is written that training would take for good data."""
    sets = [entry(hdf5(demos, tmp_path / "set")), entry(lerobot2, **choice)]
    job = run_on(tmp_path / "run", sets)
    error = refused(job)
    assert error.problem.code == code
    assert str(lerobot2) in error.problem.where
    assert not (job.run.data / "statistics.json").exists()


def test_joints_that_are_missing(lerobot2: Path, tmp_path: Path) -> None:
    error = refused(run_on(tmp_path, [entry(lerobot2)], contract="libero-eef6d"))
    assert error.problem.code == "RDTL-D034"
    assert "joint" in error.problem.what


def test_pictures_of_another_size_in_one_of_the_sets(demos: list[Demo], tmp_path: Path) -> None:
    small = hdf5([demo.part(len(demo), every=2) for demo in demos], tmp_path / "small")
    sets = [entry(hdf5(demos, tmp_path / "set")), entry(small)]
    error = refused(run_on(tmp_path / "run", sets))
    assert error.problem.code == "RDTL-D047"
    assert "32 pixels" in error.problem.what and str(small) in error.problem.where


def test_an_instruction_that_is_too_long(demos: list[Demo], tmp_path: Path) -> None:
    long = [replace(demo, instruction="very " * 30 + "slowly sort it") for demo in demos]
    error = refused(run_on(tmp_path / "run", [entry(rlds(long, tmp_path / "set"))]))
    assert error.problem.code == "RDTL-D043"
    assert "very very" in error.problem.where


def test_data_that_change_after_they_passed(demos: list[Demo], tmp_path: Path) -> None:
    """Training and a second look refuse them; before they passed, a repair is welcome."""
    folder = hdf5([demo.part(60) for demo in demos], tmp_path / "set")
    path = next(folder.iterdir())
    job = run_on(tmp_path / "run", [entry(folder, gripper_open=1)])
    assert refused(job).problem.code == "RDTL-D016"
    os.utime(path)
    job.config["dataset"]["sets"][0]["gripper_open"] = -1
    with opened(job) as batches:
        batches.micro(0, 0)
    os.utime(path)
    described = statistics.read(job.run.data / "statistics.json")
    with pytest.raises(RdtlError, match="has changed") as error:
        Data(job.run, job.config, described, 0, 1).training()
    assert error.value.problem.code == "RDTL-D028"
    assert refused(job).problem.code == "RDTL-D028"
