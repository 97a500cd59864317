"""Damaged, foreign and incomplete data sets: refused by name, never read in silence."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.core.errors import RdtlError, RefusedError
from rdt.data import widths
from rdt.data.store import open_store
from rdt.spec.contract import CONTRACTS
from tests.data import writers
from tests.data.writers import Demo

Episodes = list[dict[str, Any]]


@pytest.fixture(scope="module")
def small(demos: list[Demo]) -> list[Demo]:
    """The first steps of both demonstrations, pictures of 16 pixels."""
    return [demos[0].part(6, 4), demos[1].part(5, 4)]


def caught(path: Path, code: str, **options: Any) -> str:
    with pytest.raises(RdtlError) as error:
        open_store(path, **options)
    assert error.value.problem.code == code, error.value
    return error.value.problem.where


def rlds(small: list[Demo], path: Path, change: Callable[[Episodes], object]) -> Path:
    """An RLDS copy whose episodes were changed before they were written."""
    episodes = [writers.rlds_episode(demo) for demo in small]
    change(episodes)
    return writers.write_rlds(episodes, path / "1.0.0")


def libero(small: list[Demo], path: Path, change: Callable[[h5py.File], object]) -> Path:
    """A regenerated HDF5 file that was changed after it was written."""
    file = writers.write_regenerated(small, path)
    with h5py.File(file, "r+") as opened:
        change(opened)
    return file


def replaced(file: h5py.File, name: str, values: np.ndarray[Any, Any]) -> None:
    del file[name]
    file[name] = values


def rewritten(path: Path, column: str, change: Callable[[list[Any]], list[Any]]) -> None:
    """A parquet file with one column changed."""
    table = pq.read_table(path)
    place = table.column_names.index(column)
    values = pa.array(change(table[column].to_pylist()))
    pq.write_table(table.set_column(place, column, values), path)


def first_parquet(folder: Path) -> Path:
    return folder / "data/chunk-000/episode_000000.parquet"


# Truncated files


def test_a_cut_shard_is_named_with_its_offset(small: list[Demo], tmp_path: Path) -> None:
    folder = rlds(small * 2, tmp_path, lambda episodes: None)
    shard = folder / "liber_o10-train.tfrecord-00001-of-00002"
    content = shard.read_bytes()
    first = len(writers.frame(writers.example(writers.rlds_episode(small[0]))))
    for size in (len(content) - 1, first + 3, first // 2, 5):
        shard.write_bytes(content[:size])
        where = caught(folder, "RDTL-D013")
        assert where.startswith(f"{shard}: ")
        assert where.endswith(f"at offset {first if size > first else 0}")
    shard.write_bytes(content[:first])
    assert f"{shard}: 1 of 2 episodes" in caught(folder, "RDTL-D013")


def test_a_cut_hdf5_file_in_a_folder(small: list[Demo], tmp_path: Path) -> None:
    path = writers.write_regenerated(small, tmp_path)
    with h5py.File(path) as file:
        pictures = file["data/demo_1/obs/agentview_rgb"]
        end = pictures.id.get_offset() + pictures.nbytes - 1
    with path.open("r+b") as handle:
        handle.truncate(end)
    where = caught(tmp_path, "RDTL-D013")
    assert str(path) in where
    assert "first dataset that is cut" in where or "is cut" in where


def test_a_heap_that_would_never_end(small: list[Demo], collected: Path, tmp_path: Path) -> None:
    """The HDF5 library turns for ever when free space among the attributes has length 0."""
    path = writers.write_upstream(small, tmp_path, collected)
    content = bytearray(path.read_bytes())
    at = heap = content.index(b"GCOL")
    end = heap + struct.unpack_from("<Q", content, heap + 8)[0]
    at += 16
    while (index := struct.unpack_from("<H", content, at)[0]) != 0 and at < end:
        at += 16 + -(-struct.unpack_from("<Q", content, at + 8)[0] // 8) * 8
    assert index == 0
    content[at + 8 : at + 16] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(RdtlError, match="not whole") as error:
        open_store(path)
    assert f"heap at offset {heap}" in error.value.problem.why


@pytest.mark.parametrize("share", [0.0, 0.4, 0.99])
def test_a_cut_parquet_file(share: float, small: list[Demo], tmp_path: Path) -> None:
    folder = writers.write_lerobot2(small, tmp_path)
    path = folder / "data/chunk-000/episode_000001.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert str(path) in caught(folder, "RDTL-D013")


def test_a_file_that_becomes_shorter_while_it_is_read(small: list[Demo], tmp_path: Path) -> None:
    """A memory map would kill the process; a read would return less than asked for."""
    paths = [
        writers.write_regenerated(small, tmp_path),
        rlds(small, tmp_path, lambda episodes: None),
    ]
    for path in paths:
        store = open_store(path)
        out = np.zeros((len(store), 16, 16, 3), np.uint8)
        store.frames("eye_in_hand", np.arange(len(store)), out)
        files = [path] if path.is_file() else sorted(path.glob("*tfrecord*"))
        for file in files:
            with file.open("r+b") as handle:
                handle.truncate(100)
        with pytest.raises(RdtlError) as error:
            store.frames("agentview", np.arange(len(store)), out)
        assert error.value.problem.code == "RDTL-D013"


# Values


def test_nan_is_found_with_file_episode_and_step(small: list[Demo], tmp_path: Path) -> None:
    def spoil(file: h5py.File) -> None:
        file["data/demo_1/actions"][3, 2] = np.nan
        file["data/demo_0/obs/ee_pos"][1, 0] = np.inf

    path = libero(small, tmp_path, spoil)
    assert open_store(path).unfinite() == [
        f"{path}: demo_1, actions, step 3",
        f"{path}: demo_0, eef_pos, step 1",
    ]

    def nan(episodes: Episodes) -> None:
        episodes[1]["steps/action"][4] = np.nan

    (line,) = open_store(rlds(small, tmp_path, nan)).unfinite()
    assert line.endswith("episode_000001, actions, step 4")


def test_parts_of_other_lengths(small: list[Demo], tmp_path: Path) -> None:
    path = libero(
        small, tmp_path, lambda file: replaced(file, "data/demo_1/actions", np.zeros((4, 7)))
    )
    where = caught(path, "RDTL-D031")
    assert f"{path}: /data/demo_1" in where
    assert "actions 4" in where

    folder = rlds(small, tmp_path / "a", lambda e: e[0]["steps/observation/image"].pop())
    assert "episode_000000" in caught(folder, "RDTL-D031")
    folder = rlds(small, tmp_path / "b", lambda e: e[1].update({"steps/action": np.zeros(34)}))
    assert "steps/action: 34 numbers for 5 times" in caught(folder, "RDTL-D031")

    folder = writers.write_lerobot2(small, tmp_path / "c")
    rewritten(first_parquet(folder), "frame_index", lambda rows: [0, *rows[:-1]])
    assert str(first_parquet(folder)) in caught(folder, "RDTL-D031")
    folder = writers.write_lerobot2(small, tmp_path / "d")
    rewritten(
        first_parquet(folder), "actions", lambda rows: [row[:6] for row in rows[:2]] + rows[2:]
    )
    assert "episode 0, actions" in caught(folder, "RDTL-D013")


def test_short_episodes_are_kept(small: list[Demo], collected: Path, tmp_path: Path) -> None:
    """One step is enough; an episode of which alignment leaves nothing is an error."""
    short = [small[0].part(1), small[1].part(2)]
    assert open_store(writers.write_regenerated(short, tmp_path)).ends.tolist() == [1, 3]
    for folder in (
        rlds(short, tmp_path, lambda e: None),
        writers.write_lerobot2(short, tmp_path / "v2"),
    ):
        store = open_store(folder)
        assert store.ends.tolist() == [1, 3]
        out = np.zeros((3, 16, 16, 3), np.uint8)
        store.frames("agentview", np.arange(3), out)
        assert out.any(axis=(1, 2, 3)).all()
    upstream = writers.write_upstream([short[1]], tmp_path, collected)
    assert "demo_0: 1 rows, observations after actions" in caught(upstream, "RDTL-D031")


# Other robots, other keys


@pytest.mark.parametrize("width", [15, 14, 9])
def test_actions_of_other_robots(width: int, small: list[Demo], tmp_path: Path) -> None:
    path = libero(
        small,
        tmp_path,
        lambda file: replaced(file, "data/demo_0/actions", np.zeros((6, width))),
    )
    where = caught(path, "RDTL-D003")
    assert where.endswith(f"probably {widths.probably('action', width)}")
    folder = rlds(
        small, tmp_path, lambda e: e[0].update({"steps/action": np.zeros((6, width), np.float32)})
    )
    assert widths.probably("action", width) in caught(folder, "RDTL-D003")


@pytest.mark.parametrize("what", ["action", "state"])
@pytest.mark.parametrize("width", [15, 14, 9])
def test_statistics_of_other_robots(what: str, width: int) -> None:
    with pytest.raises(RefusedError) as error:
        widths.require(what, width, "dataset_statistics.json: libero.action.q99")
    problem = error.value.problem
    assert problem.code == ("RDTL-D003" if what == "action" else "RDTL-D004")
    assert problem.what.startswith(f"{width} numbers")
    assert "probably " in problem.where
    assert widths.probably(what, width) != "another robot"


def test_joint_state_in_place_of_state(small: list[Demo], tmp_path: Path) -> None:
    def swap(episodes: Episodes) -> None:
        for episode in episodes:
            episode["steps/observation/state"] = episode["steps/observation/joint_state"]

    assert "joint_state" in caught(rlds(small, tmp_path, swap), "RDTL-D004")
    with pytest.raises(RefusedError) as error:
        widths.require("state", 7, "dataset_statistics.json: proprio.q99")
    assert error.value.problem.fix == "use `state` (8) and not `joint_state` (7)"


# Things that are missing


def test_a_missing_camera_is_named(small: list[Demo], tmp_path: Path) -> None:
    one = libero(small, tmp_path, lambda file: file.__delitem__("data/demo_1/obs/eye_in_hand_rgb"))
    assert f"{one}: demo_1" in caught(one, "RDTL-D034")
    (tmp_path / "all").mkdir()
    rest = [
        libero(
            small,
            tmp_path / "all",
            lambda file: [
                file[f"data/demo_{i}/obs"].__delitem__("eye_in_hand_rgb") for i in (0, 1)
            ],
        ),
        rlds(small, tmp_path, lambda e: [x.pop("steps/observation/wrist_image") for x in e]),
    ]
    for path in rest:
        store = open_store(path)
        assert store.cameras == ("agentview",)
        with pytest.raises(RefusedError, match="eye_in_hand") as error:
            store.require(CONTRACTS["libero-velocity"])
        assert error.value.problem.code == "RDTL-D034"
        with pytest.raises(RefusedError, match="eye_in_hand"):
            store.frames("eye_in_hand", np.arange(1), np.zeros((1, 16, 16, 3), np.uint8))


def test_missing_features_and_columns(small: list[Demo], tmp_path: Path) -> None:
    folder = rlds(small, tmp_path, lambda episodes: episodes[1].pop("steps/action"))
    assert "episode_000001" in caught(folder, "RDTL-D014")
    folder = writers.write_lerobot2(small, tmp_path / "v2")
    table = pq.read_table(first_parquet(folder))
    pq.write_table(table.drop_columns(["wrist_image"]), first_parquet(folder))
    assert str(first_parquet(folder)) in caught(folder, "RDTL-D014")
    first_parquet(folder).unlink()
    assert str(first_parquet(folder)) in caught(folder, "RDTL-D014")


def test_missing_instructions(small: list[Demo], tmp_path: Path) -> None:
    folder = rlds(small, tmp_path, lambda e: e[0].update({"steps/language_instruction": [b""] * 6}))
    assert "episode_000000" in caught(folder, "RDTL-D020")
    folder = writers.write_lerobot2(small, tmp_path / "v2")
    rewritten(first_parquet(folder), "task_index", lambda rows: [5] * len(rows))
    assert "task_index ['5']" in caught(folder, "RDTL-D020")


def test_episodes_that_the_description_does_not_know(small: list[Demo], tmp_path: Path) -> None:
    folder = writers.write_lerobot2(small, tmp_path / "v2")
    lines = (folder / "meta/episodes.jsonl").read_text().splitlines(keepends=True)
    (folder / "meta/episodes.jsonl").write_text(lines[0])
    assert "(2, 11), the list of episodes has (1, 6)" in caught(folder, "RDTL-D013")


def test_demonstrations_that_are_misnamed(small: list[Demo], tmp_path: Path) -> None:
    path = libero(small, tmp_path, lambda file: file.move("data/demo_1", "data/dem_1"))
    assert "'dem_1' is no demo_N" in caught(path, "RDTL-D014")
    path = libero(small, tmp_path, lambda file: file["data"].attrs.__setitem__("num_demos", 3))
    assert "num_demos says 3" in caught(path, "RDTL-D014")


def test_frames_that_a_video_does_not_have(small: list[Demo], tmp_path: Path) -> None:
    folder = writers.write_lerobot3(small, tmp_path)
    video = folder / "videos/observation.images.image/chunk-000/file-000.mp4"
    writers.write_video(small[0].turned[0], video, writers.LOSSLESS)
    store = open_store(folder)
    with pytest.raises(RdtlError, match="video") as error:
        store.frames("agentview", np.arange(2), np.zeros((2, 16, 16, 3), np.uint8))
    assert error.value.problem.code == "RDTL-D032"
    assert "6 frames, its episodes have 11" in error.value.problem.why


def test_pictures_of_several_sizes(demos: list[Demo], tmp_path: Path) -> None:
    mixed = [demos[0].part(3, 4), demos[1].part(3, 2)]
    assert "32 x 32" in caught(writers.write_regenerated(mixed, tmp_path), "RDTL-D036")
    assert "16 x 16" in caught(rlds(mixed, tmp_path, lambda e: None), "RDTL-D036")


def test_a_picture_of_another_size_among_others(small: list[Demo], tmp_path: Path) -> None:
    larger = writers.rlds_episode(small[0].part(1, 2))["steps/observation/image"]
    folder = rlds(
        small, tmp_path, lambda e: e[0]["steps/observation/image"].__setitem__(3, larger[0])
    )
    store = open_store(folder)
    with pytest.raises(RdtlError) as error:
        store.frames("agentview", np.arange(5), np.zeros((5, 16, 16, 3), np.uint8))
    assert error.value.problem.code == "RDTL-D032"


# Places


def test_one_level_off(small: list[Demo], tmp_path: Path) -> None:
    folder = rlds(small, tmp_path / "set", lambda episodes: None)
    for wrong in (folder.parent, folder.parent.parent):
        with pytest.raises(RdtlError) as error:
            open_store(wrong)
        assert error.value.problem.code == "RDTL-D023"
        assert str(folder) in error.value.problem.fix
    lerobot = writers.write_lerobot2(small, tmp_path / "v2")
    for wrong in (lerobot / "data", lerobot / "meta"):
        assert str(lerobot) in caught(wrong, "RDTL-D023")


def test_nothing_there(tmp_path: Path) -> None:
    assert caught(tmp_path, "RDTL-D014") == str(tmp_path)
    assert caught(tmp_path / "none", "RDTL-D014") == str(tmp_path / "none")


def test_a_link_that_leads_nowhere(small: list[Demo], tmp_path: Path) -> None:
    """A mount that is gone: the other files must not be taken for the whole set."""
    writers.write_regenerated(small, tmp_path)
    link = tmp_path / "another_demo.hdf5"
    link.symlink_to("/nowhere/another_demo.hdf5")
    assert caught(tmp_path, "RDTL-D014") == f"{link}, a link to /nowhere/another_demo.hdf5"


def test_suites_behind_links_and_links_in_circles(small: list[Demo], tmp_path: Path) -> None:
    """A suite on another disk is part of the set; Path.rglob passes over it in silence."""
    for name in ("set/here", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        writers.write_regenerated(small, tmp_path / name)
    assert len(open_store(tmp_path / "set").episodes) == len(small)
    (tmp_path / "set/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set/here/circle").symlink_to(tmp_path / "set")
    store = open_store(tmp_path / "set")
    assert len(store.episodes) == 2 * len(small)
    assert {e.file.parent.name for e in store.episodes} == {"here", "linked"}


READ = """
import sys
from pathlib import Path
from launcher.core.errors import RdtlError
from rdt.data.store import open_store
try:
    open_store(Path(sys.argv[1]))
except RdtlError as error:
    print(error.problem.code, error.problem.where)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up root's right to read everything")
@pytest.mark.parametrize("forbidden", ["set/b", "set/b/{}", "lerobot/data/chunk-000"])
def test_what_may_not_be_read(forbidden: str, small: list[Demo], tmp_path: Path) -> None:
    """Neither passed over, nor taken for damaged."""
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        file = writers.write_regenerated(small, tmp_path / "set" / name)
    writers.write_lerobot2(small, tmp_path / "lerobot")
    place = tmp_path / forbidden.format(file.name)
    place.chmod(0)
    rights = "-dac_override,-dac_read_search"
    without = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
    done = subprocess.run(
        [*without, sys.executable, "-c", READ, str(tmp_path / forbidden.split("/")[0])],
        capture_output=True,
        text=True,
        check=False,
    )
    place.chmod(0o700)
    assert done.stdout.startswith(f"RDTL-D014 {place}")
    assert "Permission denied" in done.stdout


def test_shards_that_are_not_one_sequence(small: list[Demo], tmp_path: Path) -> None:
    folder = rlds(small, tmp_path, lambda episodes: None)
    second = folder / "liber_o10-train.tfrecord-00001-of-00002"
    other = second.rename(folder / "goal-train.tfrecord-00001-of-00002")
    assert "several data sets goal, liber_o10" in caught(folder, "RDTL-D023")
    other.unlink()
    assert "no shard [1]" in caught(folder, "RDTL-D023")


@pytest.mark.parametrize("text", ["", "[]", '{"splits": []}', '{"splits": [{"name": "train"}]}'])
def test_descriptions_of_rlds(text: str, small: list[Demo], tmp_path: Path) -> None:
    folder = rlds(small, tmp_path, lambda episodes: None)
    (folder / "dataset_info.json").write_text(text)
    assert caught(folder, "RDTL-D023").startswith(f"{folder / 'dataset_info.json'}: ")


@pytest.mark.parametrize(
    "change",
    [
        {"codebase_version": "v1.6"},
        {"total_frames": 12},
        {"features": []},
        {"data_path": "../{episode_index}"},
        {"data_path": "{unknown}"},
        {"data_path": 3},
    ],
)
def test_descriptions_of_lerobot(change: dict[str, Any], small: list[Demo], tmp_path: Path) -> None:
    folder = writers.write_lerobot2(small, tmp_path)
    information = json.loads((folder / "meta/info.json").read_text())
    (folder / "meta/info.json").write_text(json.dumps(information | change))
    with pytest.raises(RdtlError) as error:
        open_store(folder)
    assert error.value.problem.code in ("RDTL-D013", "RDTL-D014")
    assert str(folder) in error.value.problem.where
