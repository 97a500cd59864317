"""One store over three layouts: the same numbers, pictures and words, whatever lies there."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from launcher.core.errors import RdtlError, RefusedError, UsageError
from rdt.data import rlds as rlds_reader
from rdt.data.selection import Selection
from rdt.data.store import EpisodeStore, open_store, stream
from rdt.spec.contract import CONTRACTS
from tests.data import noise, writers
from tests.data.writers import Demo

LAYOUTS = ("collected", "rlds", "lerobot2", "lerobot3")
Get = Callable[[str], Path]


@pytest.fixture
def get(request: pytest.FixtureRequest) -> Get:
    """The path of a layout by its fixture's name."""
    return lambda name: Path(request.getfixturevalue(name))


def flat(demos: list[Demo], key: str) -> np.ndarray[Any, Any]:
    return np.concatenate([demo.arrays[key] for demo in demos])


def turned(demos: list[Demo], camera: int) -> np.ndarray[Any, Any]:
    return np.concatenate([demo.turned[camera] for demo in demos])


def pictures(store: EpisodeStore, camera: str, steps: np.ndarray[Any, Any]) -> Any:
    out = np.zeros((len(steps), store.picture_size, store.picture_size, 3), np.uint8)
    store.frames(camera, steps, out)
    return out if store.rotation == "180" else out[:, ::-1, ::-1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_numbers_and_words_are_the_collected_ones(layout: str, get: Get, demos: list[Demo]) -> None:
    store = open_store(get(layout))
    np.testing.assert_array_equal(
        store.actions.astype(np.float32), flat(demos, "actions").astype(np.float32)
    )
    parts = ("obs/ee_pos", "obs/ee_ori", "obs/gripper_states")
    for found, name in zip(store.robot, parts, strict=False):
        expected = flat(demos, name).astype(np.float32)
        np.testing.assert_array_equal(np.asarray(found).astype(np.float32), expected)
    assert store.ends.tolist() == np.cumsum([len(demo) for demo in demos]).tolist()
    assert {e.instruction for e in store.episodes} == {demos[0].instruction}
    assert {e.task for e in store.episodes} == {demos[0].task}
    assert store.unfinite() == []
    assert store.cameras == ("agentview", "eye_in_hand")
    assert store.picture_size == 64


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pictures_in_any_order(layout: str, get: Get, demos: list[Demo]) -> None:
    """Single steps, runs, doubles and steps of two episodes in one call."""
    store = open_store(get(layout))
    random = np.random.default_rng(0)
    steps = np.concatenate([random.permutation(len(store))[:40], np.arange(100, 130), [7, 7, 8]])
    for number, camera in enumerate(store.cameras):
        difference = np.abs(
            pictures(store, camera, steps).astype(int) - turned(demos, number)[steps]
        )
        if layout == "rlds":
            assert difference.mean() < 2.5, "JPEG of quality 95"
            assert difference.max() < 50
        else:
            assert difference.max() == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pictures_into_a_part_of_a_batch(layout: str, get: Get) -> None:
    """``out`` may be a slice of a larger array, as long as each picture is in one piece."""
    store = open_store(get(layout))
    steps = np.array([3, 4, 200])
    batch = np.zeros((3, 2, 64, 64, 3), np.uint8)
    for number, camera in enumerate(store.cameras):
        store.frames(camera, steps, batch[:, number])
        alone = np.zeros((3, 64, 64, 3), np.uint8)
        store.frames(camera, steps, alone)
        np.testing.assert_array_equal(batch[:, number], alone)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_streamed_episodes_are_those_of_the_store(layout: str, get: Get) -> None:
    store = open_store(get(layout))
    recordings = list(stream(get(layout)))
    assert [recording.episode for recording in recordings] == store.episodes
    np.testing.assert_array_equal(np.concatenate([r.actions for r in recordings]), store.actions)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_store_travels_to_another_process(layout: str, get: Get) -> None:
    store = open_store(get(layout))
    steps = np.array([0, 150])
    expected = pictures(store, "agentview", steps)
    copy: EpisodeStore = pickle.loads(pickle.dumps(store))  # what multiprocessing does
    np.testing.assert_array_equal(pictures(copy, "agentview", steps), expected)


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restless")
def test_threads_read_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As training and validation do, each with a loader of its own; hardly anything is kept."""
    monkeypatch.setattr("rdt.data.kept.KEPT_BYTES", 1)
    demos = noise.demos([3] * 20)
    store = open_store(writers.write_lerobot2(demos, tmp_path / "set"))
    truth = turned(demos, 0)

    def read(seed: int) -> None:
        for step in np.random.default_rng(seed).permutation(len(store)).tolist():
            found = pictures(store, "agentview", np.array([step]))[0]
            np.testing.assert_array_equal(found, truth[step])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(8)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_source_is_named_with_size_and_time(layout: str, get: Get) -> None:
    path = get(layout)
    found = open_store(path).source()["files"]
    inside = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    assert {entry["path"] for entry in found} == {str(p) for p in inside}
    for entry in found:
        stat = Path(entry["path"]).stat()
        assert (entry["size"], entry["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns)


def test_joints_where_they_are_recorded(get: Get, demos: list[Demo]) -> None:
    contract = CONTRACTS["libero-raw-velocity"]
    for layout in ("collected", "rlds"):
        store = open_store(get(layout))
        expected = flat(demos, "obs/joint_states").astype(np.float32)
        found = np.asarray(store.robot.joint_pos).astype(np.float32)
        np.testing.assert_array_equal(found, expected)
        store.require(contract)
    with pytest.raises(RefusedError, match="no joint positions") as error:
        open_store(get("lerobot2")).require(contract)
    assert error.value.problem.code == "RDTL-D034"
    open_store(get("lerobot2")).require(CONTRACTS["libero-velocity"])


def test_upstream_s_observations_move_before_their_action(
    collected: Path, demos: list[Demo], tmp_path: Path
) -> None:
    """Upstream's rows, aligned, are ours without each episode's first step."""
    store = open_store(writers.write_upstream(demos, tmp_path, collected))
    assert store.conventions.alignment == "after"
    ours = open_store(collected)
    rows = np.concatenate(
        [np.arange(s + 1, e - 1) for s, e in zip(ours.starts, ours.ends, strict=True)]
    )
    np.testing.assert_array_equal(store.actions, ours.actions[rows])
    np.testing.assert_array_equal(store.robot.eef_pos, np.asarray(ours.robot.eef_pos)[rows])
    steps = np.arange(len(store))[::17]
    expected = pictures(ours, "agentview", rows[::17])
    np.testing.assert_array_equal(pictures(store, "agentview", steps), expected)


def test_regenerated_files_say_nothing_and_are_aligned(
    collected: Path, demos: list[Demo], tmp_path: Path
) -> None:
    store, ours = open_store(writers.write_regenerated(demos, tmp_path)), open_store(collected)
    assert store.conventions.alignment == "before"
    assert [e.instruction for e in store.episodes] == [e.instruction for e in ours.episodes]
    assert [e.task for e in store.episodes] == [e.task for e in ours.episodes]
    np.testing.assert_array_equal(store.actions, ours.actions)
    assert len(store.sampled) == len(store)
    assert len(ours.sampled) == sum(-(-len(demo) // 8) for demo in demos), "each eighth is rendered"


def test_scene_prefixes_are_no_part_of_the_instruction(demos: list[Demo], tmp_path: Path) -> None:
    path = writers.write_regenerated(demos, tmp_path)
    store = open_store(path.rename(tmp_path / "KITCHEN_SCENE10_close_the_drawer_demo.hdf5"))
    assert store.episodes[0].instruction == "close the drawer"
    assert store.episodes[0].task == "KITCHEN_SCENE10_close_the_drawer"


def test_folders_of_folders(demos: list[Demo], tmp_path: Path) -> None:
    """Two suites, two tasks: in the order of their paths, whatever the order of creation."""
    for suite, task in (("b", "open_it"), ("a", "turn_it"), ("a", "close_it")):
        (tmp_path / suite).mkdir(exist_ok=True)
        path = writers.write_regenerated([demos[0].part(9)], tmp_path / suite)
        path.rename(tmp_path / suite / f"{task}_demo.hdf5")
    store = open_store(tmp_path)
    assert [e.task for e in store.episodes] == ["close_it", "turn_it", "open_it"]
    chosen = open_store(tmp_path, tasks=["turn it", "open_it"])
    assert [e.task for e in chosen.episodes] == ["turn_it", "open_it"]
    np.testing.assert_array_equal(chosen.actions, store.actions[9:])


def test_mixed_alignments_are_refused(collected: Path, demos: list[Demo], tmp_path: Path) -> None:
    writers.write_upstream(demos, tmp_path, collected)
    (tmp_path / "more").mkdir()
    writers.write_regenerated(demos, tmp_path / "more")
    with pytest.raises(RefusedError, match="aligned differently") as error:
        open_store(tmp_path)
    assert error.value.problem.code == "RDTL-D027"


def test_a_contradicted_alignment_is_refused(collected: Path, rlds: Path) -> None:
    with pytest.raises(RefusedError) as error:
        open_store(collected, alignment="after")
    assert "'before', declared: after" in error.value.problem.where
    late = open_store(rlds, alignment="after")
    on_time = open_store(rlds)
    np.testing.assert_array_equal(late.actions[0], on_time.actions[1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_grippers_that_open_at_plus_one(layout: str, get: Get) -> None:
    store, other = open_store(get(layout)), open_store(get(layout), gripper_open=1)
    np.testing.assert_array_equal(other.actions[:, 6], -store.actions[:, 6])
    np.testing.assert_array_equal(other.actions[:, :6], store.actions[:, :6])
    assert other.conventions.gripper_open == 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("demo", [1, "by name"])
def test_one_demonstration(layout: str, demo: int | str, get: Get, demos: list[Demo]) -> None:
    whole = open_store(get(layout))
    chosen: int | str = whole.episodes[1].name if isinstance(demo, str) else demo
    store = open_store(get(layout), tasks=[demos[0].instruction], demos=[chosen])
    assert store.episodes == whole.episodes[1:]
    steps = np.array([0, 11])
    expected = pictures(whole, "agentview", steps + whole.starts[1])
    np.testing.assert_array_equal(pictures(store, "agentview", steps), expected)


def test_one_episode_of_a_set_of_several_tasks(demos: list[Demo], tmp_path: Path) -> None:
    """Where names are of the whole set other tasks go without, in LIBERO's files they do not."""
    other = {"task": "open_the_drawer", "instruction": "open the drawer"}
    two = [demos[0].part(20, every=8), replace(demos[1].part(20, every=8), **other)]
    lerobot = writers.write_lerobot2(two, tmp_path / "lerobot")
    rlds = writers.write_rlds([writers.rlds_episode(d) for d in two], tmp_path / "rlds")
    for path in (lerobot, rlds):
        (episode,) = open_store(path, demos=["episode_000001"]).episodes
        assert episode.instruction == other["instruction"]
        for chosen in ({"demos": [1]}, {"tasks": [d.task for d in two], "demos": [episode.name]}):
            with pytest.raises(UsageError):
                open_store(path, **chosen)
    files = tmp_path / "files"
    files.mkdir()
    writers.write_regenerated([two[0], two[0]], files)
    writers.write_regenerated([two[1]], files)
    with pytest.raises(UsageError, match="no demonstration of open_the_drawer"):
        open_store(files, demos=["demo_1"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_not_there_is_refused_with_what_is_near(layout: str, get: Get) -> None:
    with pytest.raises(UsageError) as error:
        open_store(get(layout), tasks=["pick up the alphabet soap and place it in the basket"])
    assert error.value.problem.code == "RDTL-D033"
    assert "did you mean pick_up_the_alphabet_soup" in error.value.problem.where
    with pytest.raises(UsageError, match="no demonstration 2"):
        open_store(get(layout), demos=[0, 2])


def test_lerobot_with_jpeg_and_other_names(demos: list[Demo], tmp_path: Path) -> None:
    store = open_store(writers.write_lerobot2([d.part(20) for d in demos], tmp_path, "JPEG"))
    truth = turned([d.part(20) for d in demos], 0)
    difference = np.abs(pictures(store, "agentview", np.arange(40)).astype(int) - truth)
    assert difference.mean() < 2.5


def test_checksums_of_the_data_are_compared_on_demand(demos: list[Demo], tmp_path: Path) -> None:
    """A flipped bit in a picture that still decodes is found by the checksum alone."""
    episodes = [writers.rlds_episode(demo.part(5)) for demo in demos]
    folder = writers.write_rlds(episodes, tmp_path / "set")
    assert rlds_reader.verify_checksums(folder) == 2
    shard = sorted(folder.glob("*tfrecord*"))[1]
    content = bytearray(shard.read_bytes())
    place = content.index(episodes[1]["steps/action"].tobytes()) + 2
    content[place] ^= 1
    shard.write_bytes(content)
    open_store(folder)
    with pytest.raises(RdtlError, match="checksum of a record's data") as error:
        rlds_reader.verify_checksums(folder)
    assert error.value.problem.where == f"{shard}: offset 0"


def test_chunks_across_pictures_are_named(demos: list[Demo], tmp_path: Path) -> None:
    """What `compression="gzip"` without `chunks` gives is read, and named."""
    path = writers.write_regenerated(demos, tmp_path)
    with h5py.File(path, "r+") as file:
        for name in ("data/demo_0/obs/agentview_rgb", "data/demo_1/obs/agentview_rgb"):
            values = file[name][:]
            del file[name]
            file.create_dataset(name, data=values, compression="gzip")
    store = open_store(path)
    (finding,) = store.findings()
    assert (finding.code, finding.severity) == ("RDTL-D035", "warning")
    assert f"{path}: /data/demo_0/obs/agentview_rgb" in finding.where
    np.testing.assert_array_equal(
        pictures(store, "agentview", np.array([5, 6, 200])), turned(demos, 0)[[5, 6, 200]]
    )
    whole_pictures = tmp_path / "whole"
    whole_pictures.mkdir()
    path = writers.write_regenerated(demos, whole_pictures)
    assert open_store(path).findings() == []


def test_what_is_chosen_of_what_is_there_is_told(collected: Path) -> None:
    """RDTL-D019: as the loaders that read `demo_0` of each file."""
    (finding,) = open_store(collected, demos=[0]).findings()
    assert (finding.code, finding.severity) == ("RDTL-D019", "info")
    assert finding.what.startswith("1 of 2 demonstrations")
    assert open_store(collected).findings() == []


def test_a_part_of_a_suite_and_a_filtered_copy_are_told(demos: list[Demo], tmp_path: Path) -> None:
    """RDTL-D014: a folder that lost nine files; ten tasks of which most demonstrations are gone."""
    lost = tmp_path / "libero_object"
    lost.mkdir()
    writers.write_regenerated(demos, lost)
    (finding,) = open_store(lost).findings()
    assert (finding.code, finding.severity) == ("RDTL-D014", "warning")
    assert finding.what == "1 of the 10 tasks of libero_object are there"

    words = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    tasks = [replace(demos[0].part(20, 4), task=f"pick_up_the_{word}") for word in words]
    episodes = [writers.rlds_episode(demo) for demo in tasks]
    folder = writers.write_rlds(episodes, tmp_path / "libero_object_no_noops/1.0.0")
    (finding,) = open_store(folder).findings()
    assert (finding.code, finding.severity) == ("RDTL-D014", "info")
    assert finding.what.startswith("10 demonstrations, libero_object has 500: another copy")
    assert finding.where.endswith("1 to 1 of a task")


def test_the_published_copy_of_a_suite_passes(tmp_path: Path) -> None:
    selection = Selection()
    for number in range(500):
        selection.wants(f"task {number % 10}", "words", f"demo_{number // 10}", number // 10)
    for name in ("libero_goal", "libero_goal_no_noops/1.0.0", "own"):
        assert selection.findings(tmp_path / name) == []
