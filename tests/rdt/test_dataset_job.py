"""The dataset job: merging, checking, describing; killed anywhere, run again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from jobs import dataset
from launcher.core.errors import RdtlError, RefusedError, UsageError
from launcher.core.job import Job
from launcher.report import sources
from launcher.schema import DataSet
from rdt.data import statistics
from rdt.data.declared import DeclaredSet
from rdt.spec.contract import LIBERO_VELOCITY
from rdt.training import held_out
from rdt.training.data import Data
from tests.rdt import checkpoints, small_policy, synthetic


@pytest.fixture
def job(tmp_path: Path) -> Job:
    synthetic.write_plan(tmp_path)
    synthetic.write_parts(tmp_path / "data/parts", 3)
    return Job.from_environment(str(tmp_path))


def listed(path: Path, **choice: Any) -> dict[str, Any]:
    """An entry of `dataset.sets` as a run's configuration has it."""
    return DataSet(path=str(path), **choice).model_dump(mode="json")


def merged(job: Job) -> Path:
    return job.run.data / "libero_object" / f"{synthetic.TASK}_demo.hdf5"


def test_parts_become_one_file_in_libero_s_layout(job: Job) -> None:
    dataset.body(job)
    with h5py.File(merged(job)) as file:
        assert sorted(file["data"]) == ["demo_0", "demo_1", "demo_2"]
        assert file["data"].attrs["obs_action_alignment"] == "before"
        assert file["data"].attrs["num_demos"] == 3
        assert file["data"].attrs["total"] == 72
        for number in range(3):
            for key, values in synthetic.demonstration(number).items():
                np.testing.assert_array_equal(file[f"data/demo_{number}/{key}"][:], values)
    assert list((job.run.data / "parts").iterdir()) == []


def test_running_again_changes_nothing(job: Job) -> None:
    dataset.body(job)
    paths = [merged(job), job.run.data / "statistics.json", job.run.data / "windows.json"]
    before = [path.read_bytes() for path in paths]
    dataset.body(job)
    assert [path.read_bytes() for path in paths] == before


def test_killed_between_publishing_and_removing_parts(job: Job) -> None:
    dataset.body(job)
    content = merged(job).read_bytes()
    synthetic.write_parts(job.run.data / "parts", 2)
    dataset.body(job)
    assert merged(job).read_bytes() == content
    assert list((job.run.data / "parts").iterdir()) == []


def test_missing_parts_are_named(job: Job) -> None:
    (job.run.data / "parts/demo_001.hdf5").unlink()
    with pytest.raises(RdtlError, match="1 of 3") as caught:
        dataset.body(job)
    assert "demo_001.hdf5" in caught.value.problem.where
    assert not merged(job).exists()
    assert (job.run.data / "parts/demo_000.hdf5").exists()


def test_parts_of_different_settings_are_refused(job: Job) -> None:
    with h5py.File(job.run.data / "parts/demo_002.hdf5", "r+") as file:
        file["data"].attrs["env_args"] = "other"
    with pytest.raises(RefusedError, match="differ in env_args"):
        dataset.body(job)
    assert not merged(job).exists()


def test_a_named_file_is_used_where_it_is(job: Job, tmp_path: Path) -> None:
    path = synthetic.write(tmp_path / "own.hdf5", {"demo_0": synthetic.demonstration(0)})
    job.config["dataset"]["sets"] = [listed(path)]
    dataset.body(job)
    described = statistics.read(job.run.data / "statistics.json")
    assert [source.path for source in described.sources(job.run.root)] == [path]
    assert len(list((job.run.data / "parts").iterdir())) == 3


def test_a_link_that_names_other_data_by_now_is_refused(job: Job, tmp_path: Path) -> None:
    """With what the dataset stage kept, by files; without it, by the numbers themselves."""
    for number, name in enumerate(("v1", "v2")):
        demos = {"demo_0": synthetic.demonstration(number)}
        synthetic.write(tmp_path / name / "own.hdf5", demos)
    link = tmp_path / "current"

    def opened(name: str) -> Data:
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        described = statistics.read(job.run.data / "statistics.json")
        return Data(job.run, job.config, described, 0, 1)

    link.symlink_to("v1")
    job.config["dataset"]["sets"] = [listed(link)]
    dataset.body(job)
    opened("v1")
    with pytest.raises(RdtlError, match=r"RDTL-D028.*has changed"):
        opened("v2")
    shutil.rmtree(job.run.data / "index")
    opened("v1")
    shutil.rmtree(job.run.data / "index")
    with pytest.raises(RdtlError, match=r"RDTL-D028.*not those that were measured"):
        opened("v2")


def test_statistics_agree_with_numpy(job: Job) -> None:
    dataset.body(job)
    described = statistics.read(job.run.data / "statistics.json")
    arrays = [synthetic.demonstration(number) for number in range(3)]
    positions = np.concatenate([a["obs/ee_pos"] for a in arrays]).astype(np.float32).astype(float)
    np.testing.assert_allclose(described.state.mean[30:33], positions.mean(0), rtol=1e-12)
    np.testing.assert_allclose(described.state.std[30:33], positions.std(0), rtol=1e-12)
    np.testing.assert_allclose(described.state.q99[30:33], np.percentile(positions, 99, axis=0))
    actions = np.concatenate([a["actions"] for a in arrays]).astype(np.float32).astype(float)
    np.testing.assert_allclose(described.action.mean[39:45], actions[:, :6].mean(0), rtol=1e-12)
    np.testing.assert_allclose(described.action.min[39:45], actions[:, :6].min(0), rtol=1e-12)
    assert described.action.mean[10] == pytest.approx((1 - actions[:, 6].mean()) / 2)
    assert (described.episodes, described.steps, described.windows) == (3, 72, 24)
    assert [entry["path"] for entry in described.sets] == [
        str(merged(job).relative_to(job.run.root))
    ]
    assert described.sources(job.run.root) == [DeclaredSet(merged(job))]
    assert described.contract == LIBERO_VELOCITY.to_dict()


def test_windows_tell_coverage(job: Job) -> None:
    dataset.body(job)
    windows = json.loads((job.run.data / "windows.json").read_text())
    assert windows["windows"] == 24
    assert windows["coverage"] == 1.0
    assert [episode["windows"] for episode in windows["episodes"]] == [8, 8, 8]
    told = {finding["severity"]: finding["code"] for finding in windows["findings"]}
    assert set(told) == {"ok", "info"}
    assert told["info"] == "RDTL-E007"  # pictures of noise lie no way


def test_an_epoch_has_as_many_samples_as_weights_say(job: Job, tmp_path: Path) -> None:
    """A forecast of hours reads it; the samples themselves are counted beside it."""
    dataset.body(job)
    job.config["dataset"]["sets"] = [listed(merged(job), weight=2)]
    dataset.body(job)
    found = json.loads((job.run.data / "windows.json").read_text())
    assert (found["windows"], found["epoch_samples"]) == (24, 48)


def test_what_is_held_out_is_counted_apart(job: Job) -> None:
    """As training chooses it, with its seed; the report says it."""
    job.config["dataset"]["held_out"] = 1
    dataset.body(job)
    found = json.loads((job.run.data / "windows.json").read_text())
    store = DeclaredSet(merged(job)).open()
    (held,) = held_out.choose([store.episodes], 1, job.config["seed"])
    assert [episode["held_out"] for episode in found["episodes"]] == held.tolist()
    assert (found["windows"], found["control_steps"], found["control_steps_learned"]) == (
        16,
        48,
        48,
    )
    described = statistics.read(job.run.data / "statistics.json")
    assert (described.episodes, described.windows) == (3, 24), "numbers are of all of them"
    seen = sources.data(job.run)
    assert seen is not None
    assert dict(seen.lines)["demonstrations"].startswith("2, and 1 held out")


def test_more_than_there_are_is_refused_before_any_gpu_is_asked_for(job: Job) -> None:
    job.config["dataset"]["held_out"] = 0.1  # of three rounds to none
    with pytest.raises(RefusedError, match="RDTL-T064") as caught:
        dataset.body(job)
    assert "--name OTHER" in caught.value.problem.fix  # this run has begun: its plan stays
    assert not (job.run.data / "statistics.json").exists()


def test_epochs_shorter_than_the_warm_up_are_refused_there_too(job: Job) -> None:
    job.config["train"].update(steps=None, epochs=2, warmup_steps=13)  # 2 x 24 samples in fours
    with pytest.raises(UsageError, match="RDTL-T062") as caught:
        dataset.body(job)
    assert "--name OTHER" in caught.value.problem.fix
    job.config["train"]["warmup_steps"] = 12
    dataset.body(job)


def test_a_chunk_has_the_length_of_the_checkpoint_s(job: Job, tmp_path: Path) -> None:
    """`train.model` says nothing of a network that is loaded."""
    network = small_policy.network(small_policy.config(pred_horizon=5))
    folder = checkpoints.reference(tmp_path / "rdt", network)
    for named, horizon in ((None, 8), (str(folder), 5), ("owner/of-the-hub", 64)):
        job.config["train"]["checkpoint"] = named
        dataset.body(job)
        found = json.loads((job.run.data / "windows.json").read_text())
        assert found["horizon"] == horizon
        (tails,) = [row for row in found["epoch"] if row["order"] == "tail-dropping"]
        assert tails["never"] == pytest.approx(min(1, horizon / 24))


def spoil_nan(arrays: dict[str, Any]) -> None:
    arrays["obs/ee_pos"][3, 1] = np.nan


def spoil_range(arrays: dict[str, Any]) -> None:
    arrays["actions"][5, 2] = 1.2


def spoil_metres(arrays: dict[str, Any]) -> None:
    arrays["actions"][:, :3] *= 0.01


def spoil_gripper(arrays: dict[str, Any]) -> None:
    arrays["actions"][:, 6] *= -1


def spoil_rotation(arrays: dict[str, Any]) -> None:
    arrays["obs/ee_ori"] = arrays["obs/ee_ori"][:, ::-1].copy()


def spoil_frames(arrays: dict[str, Any]) -> None:
    arrays["obs/frame_step"][:] = -1


def spoil_picture(arrays: dict[str, Any]) -> None:
    arrays["obs/eye_in_hand_rgb"][0] = 0


def spoil_still(arrays: dict[str, Any]) -> None:
    arrays["actions"][:, 3] = 0


SPOILED = {
    spoil_nan: "RDTL-D006",
    spoil_range: "RDTL-D001",
    spoil_metres: "RDTL-D001",
    spoil_gripper: "RDTL-D016",
    spoil_rotation: "RDTL-D015",
    spoil_frames: "RDTL-D046",
    spoil_picture: "RDTL-D013",
    spoil_still: "RDTL-D006",
}


@pytest.mark.parametrize("spoil", SPOILED)
def test_bad_data_are_refused(spoil: Any, job: Job, tmp_path: Path) -> None:
    arrays = synthetic.demonstration(0)
    spoil(arrays)
    path = synthetic.write(tmp_path / "own.hdf5", {"demo_0": arrays})
    job.config["dataset"]["sets"] = [listed(path)]
    with pytest.raises(RefusedError) as caught:
        dataset.body(job)
    assert caught.value.problem.code == SPOILED[spoil]
    assert str(path) in caught.value.problem.where
    assert not (job.run.data / "statistics.json").exists()


def test_pictures_of_another_size_are_refused(job: Job) -> None:
    job.config["task"]["camera_size"] = 128
    with pytest.raises(RefusedError, match="64 pixels"):
        dataset.body(job)


def test_statistics_of_another_contract_are_refused(job: Job) -> None:
    dataset.body(job)
    path = job.run.data / "statistics.json"
    data = json.loads(path.read_text())
    data["contract"]["control_hz"] = 10
    path.write_text(json.dumps(data))
    with pytest.raises(RefusedError, match="control_hz"):
        statistics.read(path)
