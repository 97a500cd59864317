"""Videos: which episodes, and that none shows an episode which the table does not count."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import evaluate, videos
from launcher.core import files
from launcher.core.errors import RdtlError
from launcher.core.job import Job
from rdt.sim import sequential
from rdt.sim.libero import Simulator
from rdt.sim.video import ReplayError, replay_frames, write_mp4
from rdt.spec import record as records
from rdt.spec.record import Record
from tests.sim.conftest import SIZE, lender

pytestmark = pytest.mark.sim
Build = Callable[..., Any]


@pytest.fixture(autouse=True)
def lend(monkeypatch: pytest.MonkeyPatch, seeing: Simulator) -> None:
    """Jobs get the session's simulator."""
    borrow = lender(seeing)
    monkeypatch.setattr(sequential, "Simulator", lambda task, blind, cameras: borrow(task))


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, make_job: Build, config: Build, blind: Simulator
) -> Job:
    """Two failed episodes of the expert, whose time is up after 8 steps, and two of zero."""
    settings = config(policies=["expert", "zero"], init_states=(30, 32), max_steps=8)
    job: Job = make_job(tmp_path_factory.mktemp("whole"), settings)
    borrow = lender(blind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequential, "Simulator", lambda task, blind, cameras: borrow(task))
        evaluate.body(job)
    return job


def _first(job: Job) -> tuple[Record, Any]:
    record = records.read_folder(job.run.records)[0]
    return record, np.load(job.run.records / "actions" / f"{record.key.text()}.npy")


@pytest.mark.slow
def test_failures_of_the_policy_under_test_task_by_task(whole: Job) -> None:
    """Each task's first before any task's second; nothing of the references."""
    record = vars(_first(whole)[0])
    kinds = [("rdt", "fail", 0, n) for n in range(4)] + [
        ("rdt", "fail", 2, 3),
        ("rdt", "fail", 9, 1),
    ]
    kinds += [("rdt", "success", 2, 0), ("rdt", "env_error", 2, 1), ("zero", "fail", 0, 0)]
    found = [
        Record(**{**record, "policy": p, "status": s, "task_id": t, "init_state": i})
        for p, s, t, i in kinds
    ]

    def chosen(outcomes: list[Any], count: int) -> list[tuple[int, int]]:
        return [
            (r.task_id, r.init_state)
            for r in videos.choose(found, ["zero", "rdt"], outcomes, count)
        ]

    assert chosen(["fail"], 4) == [(0, 0), (0, 1), (2, 3), (9, 1)]
    assert chosen(["fail"], 2) == [(0, 0), (2, 3)]
    assert chosen(["fail", "success"], 1) == [(0, 0), (2, 0)]
    assert chosen(["fail"], 50) == [(0, 0), (0, 1), (0, 2), (0, 3), (2, 3), (9, 1)]


def test_videos_show_what_the_records_say(whole: Job) -> None:
    """Two tasks share the replays; started again, they make none twice."""
    for index in (0, 1):
        videos.body(Job(whole.run, whole.config, "videos", index, 2, 0, 0))
        (entry,) = files.read_json(whole.run.videos / f"index.{index}.json")
        assert entry["key"] == f"expert-libero_object-t0-i{30 + index}-n0"
        assert (entry["status"], entry["steps"], entry["problem"]) == ("fail", 8, "")
        assert _video_facts(whole.run.videos / entry["file"]) == ((SIZE, SIZE), 10.0, 5)
    path = whole.run.videos / entry["file"]
    first = path.stat().st_mtime_ns
    videos.body(Job(whole.run, whole.config, "videos", 1, 2, 0, 0))
    assert path.stat().st_mtime_ns == first


def test_two_failures_of_one_task_keep_a_video_each(whole: Job) -> None:
    """openpi names a video by instruction and outcome: its second one replaces the first."""
    for index in (0, 1):
        videos.body(Job(whole.run, whole.config, "videos", index, 2, 0, 0))
    index = [files.read_json(whole.run.videos / f"index.{n}.json")[0] for n in (0, 1)]
    names = {r.key.text(): r.task_name for r in records.read_folder(whole.run.records)}
    by_openpi = {f"rollout_{names[one['key']]}_{one['status']}.mp4" for one in index}
    assert len(by_openpi) == 1
    kept = {(whole.run.videos / one["file"]).stat().st_ino for one in index}
    assert len(kept) == 2


def _video_facts(path: Path) -> tuple[tuple[int, int], float, int]:
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    facts = next(reader)
    assert (facts["codec"], facts["pix_fmt"].split("(")[0]) == ("h264", "yuv420p")
    return facts["size"], facts["fps"], sum(1 for _ in reader)


@pytest.mark.slow
def test_a_replay_that_ends_elsewhere_is_no_replay(whole: Job, seeing: Simulator) -> None:
    """The outcome alone would not tell: a failure is easily failed again."""
    record, actions = _first(whole)
    assert len(replay_frames(seeing, record, actions)) == 5
    nudged = actions.copy()
    nudged[3, 0] += 1e-3
    with pytest.raises(ReplayError, match="ended in another state"):
        replay_frames(seeing, record, nudged)
    with pytest.raises(ReplayError, match="no success in 8 steps, not success after 8"):
        replay_frames(seeing, Record(**{**vars(record), "status": "success"}), actions)


def test_a_replay_in_another_scene_is_none(whole: Job, seeing: Simulator) -> None:
    record, actions = _first(whole)
    seeing.reset(record.init_state)
    assert seeing.fixtures_sha256 == record.fixtures_sha256
    moved = Record(**{**vars(record), "fixtures_sha256": record.state_sha256})
    with pytest.raises(ReplayError, match="furniture"):
        replay_frames(seeing, moved, actions)


@pytest.mark.slow
def test_a_film_that_does_not_fit_is_none(small_disk: Path) -> None:
    """ffmpeg ends with a status that nobody reads, and leaves what fitted."""
    noise = np.random.default_rng(0).integers(0, 255, (40, SIZE, SIZE, 3), np.uint8)
    path, filler = small_disk / "film.mp4", small_disk / "filler"
    with filler.open("wb") as handle:
        free = os.statvfs(small_disk).f_bavail
        os.posix_fallocate(handle.fileno(), 0, 4096 * (free - 20))
    with pytest.raises(RdtlError, match="RDTL-E076"):
        write_mp4(path, list(noise))
    assert list(small_disk.iterdir()) == [filler]
    filler.unlink()
    write_mp4(path, list(noise[:2]))
    assert _video_facts(path)[2] == 2


def test_what_cannot_be_shown_is_said(whole: Job, tmp_path: Path, make_job: Build) -> None:
    """Other actions, or none: the index says so, the job goes on, no file is left."""
    job = make_job(tmp_path, whole.config)
    (job.run.records / "actions").mkdir(parents=True)
    chosen = records.read_folder(whole.run.records)[:2]
    (job.run.records / "part-x.jsonl").write_text("".join(r.line() + "\n" for r in chosen))
    path = job.run.records / "actions" / f"{chosen[0].key.text()}.npy"
    np.save(path, np.zeros((8, 7), np.float32))
    videos.body(job)
    changed, lost = files.read_json(job.run.videos / "index.0.json")
    assert changed["problem"].endswith("holds other actions than those that were executed")
    assert lost["problem"].endswith("cannot be read (FileNotFoundError)")
    assert list(job.run.videos.glob("*.mp4")) == []


def test_indices_of_an_earlier_larger_array_are_gone(
    tmp_path: Path, make_job: Build, config: Build
) -> None:
    """Cut again into fewer tasks, their videos stood in the gallery beside the new choice."""
    job = make_job(tmp_path, config(policies=["expert"], init_states=(30, 32)), 1, 2)
    for number in range(12):
        files.write_json(job.run.videos / f"index.{number}.json", [])
    videos.body(job)
    left = {path.name for path in job.run.videos.iterdir()}
    assert left == {"index.0.json", "index.1.json"}
