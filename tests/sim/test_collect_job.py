"""Demonstrations: layout, determinism, re-running, files that do not belong."""

import dataclasses
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from jobs import collect
from launcher.core.errors import RdtlError
from launcher.core.job import Job
from rdt.data.store import open_store
from rdt.policy.references import first_demonstration
from rdt.sim import demo_file
from rdt.sim.demonstration import Run, find_run, replay
from rdt.sim.libero import Simulator

pytestmark = pytest.mark.sim
SETTINGS = {"demos": 1, "init_states": (5, 7), "render_every": 40, "shards": 1}
STEPS = ("label", "executed", "states")


@pytest.fixture(scope="module")
def job(
    tmp_path_factory: pytest.TempPathFactory,
    make_job: Callable[..., Job],
    config: Callable[..., dict[str, Any]],
) -> Job:
    """A run directory with its one demonstration collected."""
    made = make_job(tmp_path_factory.mktemp("collect"), config(collect=SETTINGS))
    collect.body(made)
    return made


@pytest.fixture(scope="module")
def run(job: Job, blind: Simulator) -> Run:
    """The same demonstration, found by a simulator that ran other episodes before."""
    return find_run(blind, job.config["collect"], job.config["seed"], 0)


def _part(job: Job) -> Path:
    return job.run.data / "parts" / "demo_000.hdf5"


def test_layout(job: Job) -> None:
    with h5py.File(_part(job), "r") as file:
        data, demo = file["data"], file["data/demo_000"]
        T = len(demo["actions"])
        assert data.attrs["obs_action_alignment"] == "before"
        assert json.loads(data.attrs["problem_info"])["language_instruction"].startswith("pick up")
        assert demo["executed_actions"].shape == demo["actions"].shape == (T, 7)
        assert demo["obs/agentview_rgb"].shape == (T, 256, 256, 3)
        np.testing.assert_array_equal(demo["obs/frame_step"][:], np.arange(T) // 40 * 40)
        assert demo["dones"][:].sum() == demo["dones"][-1] == 1
        np.testing.assert_array_equal(demo["robot_states"][:, 2:5], demo["obs/ee_pos"][:])
        off = demo["executed_actions"][:] - demo["actions"][:]
        assert 0.05 < off[:, :3].std() < 0.2
        assert not off[:, 3:].any()


def test_observation_stands_before_its_action(job: Job, blind: Simulator) -> None:
    """Row t holds what an evaluation sees and feels before it executes action t."""
    with h5py.File(_part(job), "r") as file:
        demo = file["data/demo_000"]
        blind.reset(int(demo.attrs["init_state_id"]))
        for t in range(12):
            felt = blind.observation()
            np.testing.assert_array_equal(demo["states"][t], blind.state())
            np.testing.assert_array_equal(demo["obs/ee_pos"][t], felt.eef_pos)
            np.testing.assert_array_equal(demo["obs/gripper_states"][t], felt.gripper_qpos)
            np.testing.assert_array_equal(demo["robot_states"][t, 5:], felt.eef_quat)
            blind.step(demo["executed_actions"][t].astype(np.float32))


def test_the_training_side_reads_it(job: Job) -> None:
    store = open_store(_part(job))
    (episode,) = store.episodes
    assert episode.task == "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
    assert store.picture_size == 256
    assert store.sampled.tolist() == list(range(0, episode.length, 40))


@pytest.mark.slow
def test_content_depends_on_nothing_but_the_settings(job: Job, run: Run, seeing: Simulator) -> None:
    """Simulators that ran other episodes before give the same rows."""
    frames = replay(seeing, run, 40)
    with h5py.File(_part(job), "r") as file:
        demo = file["data/demo_000"]
        np.testing.assert_array_equal(demo["states"][:], run.states)
        np.testing.assert_array_equal(demo["actions"][:], run.label)
        np.testing.assert_array_equal(demo["executed_actions"][:], run.executed)
        for row in (0, 40, len(frames) - 1):
            picture = demo["obs/eye_in_hand_rgb"][row]
            np.testing.assert_array_equal(picture, frames[row].pictures["eye_in_hand"])
    np.testing.assert_array_equal(first_demonstration(_part(job)), run.executed)


@pytest.mark.slow
def test_a_disk_that_is_full_is_an_error_and_no_crash(
    run: Run, seeing: Simulator, small_disk: Path
) -> None:
    """Closing a file, HDF5 ends the process where the scene's model has no room any more."""
    frames = replay(seeing, run, 40)[:2]
    short = dataclasses.replace(run, **{n: getattr(run, n)[:2] for n in STEPS})
    path, filler = small_disk / "demo.hdf5", small_disk / "filler"
    demo_file.write(path, "demo_000", seeing, short, frames, "settings")
    size, free = path.stat().st_size, os.statvfs(small_disk).f_bavail * 4096
    path.unlink()

    def ends(left: int) -> None:
        with filler.open("wb") as handle:
            os.posix_fallocate(handle.fileno(), 0, free + size - left)
        with pytest.raises(OSError, match="No space left"):
            demo_file.write(path, "demo_000", seeing, short, frames, "settings")

    for left in range(8192, size - 8192, 98_304):
        child = multiprocessing.get_context("fork").Process(target=ends, args=(left,))
        child.start()
        child.join(60)
        assert child.exitcode == 0, left


def test_a_replay_that_differs_is_an_error(run: Run, seeing: Simulator) -> None:
    executed = run.executed.copy()
    executed[1, 0] = -executed[1, 0]
    with pytest.raises(RdtlError, match="RDTL-D041") as caught:
        replay(seeing, dataclasses.replace(run, executed=executed), 1000)
    assert caught.value.problem.where.endswith("step 2: another simulator state")


def test_running_again_writes_nothing(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "Collector", _must_not_start)
    before = (_part(job).read_bytes(), _part(job).stat().st_mtime_ns)
    collect.body(job)
    assert before == (_part(job).read_bytes(), _part(job).stat().st_mtime_ns)


def test_nothing_to_do_when_merged(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_job: Callable[..., Job]
) -> None:
    monkeypatch.setattr(collect, "Collector", _must_not_start)
    other = make_job(tmp_path, job.config)
    name = "pick_up_the_alphabet_soup_and_place_it_in_the_basket_demo.hdf5"
    merged = other.run.data / "libero_object" / name
    merged.parent.mkdir(parents=True)
    merged.write_bytes(b"whatever it holds is the business of the next stage")
    collect.body(other)
    assert not (other.run.data / "parts").exists()


def _must_not_start(*arguments: Any) -> None:
    raise AssertionError("a simulator was started although nothing is missing")


@pytest.mark.parametrize("damage", ["cut", "foreign", "settings"])
def test_a_file_that_does_not_belong_is_named_and_kept(
    job: Job, tmp_path: Path, make_job: Callable[..., Job], damage: str
) -> None:
    config = {**job.config, "seed": 8} if damage == "settings" else job.config
    other = make_job(tmp_path, config)
    part = _part(other)
    part.parent.mkdir(parents=True)
    shutil.copy(_part(job), part)
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:100_000])
    elif damage == "foreign":
        part.write_bytes(b"these are not the bytes of a demonstration")
    before = part.read_bytes()
    with pytest.raises(RdtlError, match="RDTL-D042") as caught:
        collect.body(other)
    assert str(part) in caught.value.problem.where
    assert part.read_bytes() == before
