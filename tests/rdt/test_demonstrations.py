"""Reading demonstration files: layouts, alignment, pictures, broken files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from launcher.core.errors import RdtlError
from rdt.data import hdf5
from rdt.data.store import open_store
from tests.rdt import synthetic

LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "user block": {"userblock": 1024},
    "latest": {"libver": "latest"},
    "gzip": {"picture_options": {"compression": "gzip", "chunks": (1, 64, 64, 3)}},
    "chunked": {"picture_options": {"chunks": (4, 32, 32, 3)}},
}


def two_demos() -> dict[str, dict[str, Any]]:
    return {f"demo_{i}": synthetic.demonstration(i, steps=20 + i) for i in (10, 2)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pictures_of_every_layout(layout: str, tmp_path: Path) -> None:
    demos = two_demos()
    store = open_store(synthetic.write(tmp_path / "a.hdf5", demos, **LAYOUTS[layout]))
    both = np.zeros((2, len(store.sampled), 64, 64, 3), np.uint8)
    store.pictures(store.sampled, dict(zip(store.cameras, both, strict=True)))
    for camera, pictures in zip(store.cameras, both, strict=True):
        expected = [demos[e.name][f"obs/{camera}_rgb"] for e in store.episodes]
        np.testing.assert_array_equal(pictures, np.concatenate(expected)[store.sampled])


@pytest.mark.parametrize("layout", ["contiguous", "user block", "latest"])
def test_contiguous_pictures_are_read_by_offset(layout: str, tmp_path: Path) -> None:
    path = synthetic.write(tmp_path / "a.hdf5", two_demos(), **LAYOUTS[layout])
    with h5py.File(path) as file:
        pictures = file["data/demo_2/obs/agentview_rgb"]
        offset = hdf5.raw_offset(pictures)
        assert offset is not None
        raw = np.fromfile(path, np.uint8, pictures.nbytes, offset=offset)
        np.testing.assert_array_equal(raw, pictures[:].reshape(-1))


def test_a_dataset_never_written_has_no_offset(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w", userblock_size=1024) as file:
        assert hdf5.raw_offset(file.create_dataset("empty", (10, 4), np.uint8)) is None


def test_rows_with_a_picture_of_their_own_are_samples(tmp_path: Path) -> None:
    demos = two_demos()
    store = open_store(synthetic.write(tmp_path / "a.hdf5", demos))
    assert [e.name for e in store.episodes] == ["demo_2", "demo_10"], "ordered by number"
    assert store.sampled.tolist() == [*range(0, 22, 3), *range(22, 52, 3)]
    for arrays in demos.values():
        del arrays["obs/frame_step"]
    every = open_store(synthetic.write(tmp_path / "b.hdf5", demos))
    assert len(every.sampled) == 22 + 30


def test_upstream_s_alignment_is_shifted_by_one(tmp_path: Path) -> None:
    """obs[j] recorded after actions[j] is what action j + 1 answers."""
    demos = {"demo_0": synthetic.demonstration(0, every=1)}
    after = open_store(synthetic.write(tmp_path / "a.hdf5", demos, alignment=None))
    before = open_store(synthetic.write(tmp_path / "b.hdf5", demos))
    assert len(after.sampled) == len(before.sampled) - 1
    np.testing.assert_array_equal(after.robot.eef_pos, before.robot.eef_pos[:-1])
    np.testing.assert_array_equal(after.actions, before.actions[1:])


def caught(path: Path) -> RdtlError:
    with pytest.raises(RdtlError) as error:
        open_store(path)
    return error.value


@pytest.mark.parametrize("layout", ["contiguous", "gzip", "user block", "latest"])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_a_cut_file_is_named_with_the_dataset_and_left_alone(
    layout: str, share: float, tmp_path: Path
) -> None:
    path = synthetic.write(tmp_path / "a.hdf5", two_demos(), **LAYOUTS[layout])
    first = None if layout == "gzip" else first_cut(path, share)
    content = path.read_bytes()
    content = content[: int(share * len(content))]
    path.write_bytes(content)
    problem = caught(path).problem
    assert problem.code == "RDTL-D013"
    assert str(path) in problem.where
    if first is not None:
        assert first in problem.where or "the index of /data" in problem.where
    assert path.read_bytes() == content


def first_cut(path: Path, share: float) -> str:
    """The dataset that loses bytes first, found by its offsets in the whole file."""
    places: list[tuple[int, str]] = []

    def visit(name: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset) and item.id.get_offset() is not None:
            places.append((item.id.get_offset() + item.nbytes, name))

    with h5py.File(path) as file:
        file.visititems(visit)
    limit = int(share * path.stat().st_size)
    return min((end, name) for end, name in places if end > limit)[1]


def test_a_dataset_cut_in_the_middle_is_found(tmp_path: Path) -> None:
    """Not only `index is cut`: with the index in front, the very dataset is named."""
    path = synthetic.write(tmp_path / "a.hdf5", {"demo_0": synthetic.demonstration(0)})
    with h5py.File(path) as file:
        pictures = file["data/demo_0/obs/agentview_rgb"]
        limit = pictures.id.get_offset() + pictures.nbytes // 2
    os_truncate(path, limit)
    assert "data/demo_0/obs/agentview_rgb" in caught(path).problem.where


def os_truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def test_a_file_cut_while_it_is_read(tmp_path: Path) -> None:
    path = synthetic.write(tmp_path / "a.hdf5", two_demos())
    store = open_store(path)
    os_truncate(path, 4096)
    out = np.zeros((1, 64, 64, 3), np.uint8)
    with pytest.raises(RdtlError, match="became shorter"):
        store.frames("agentview", store.sampled[-1:], out)


@pytest.mark.parametrize("content", [b"", b"no HDF5 at all" * 100])
def test_other_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    path.write_bytes(content)
    assert caught(path).problem.code == "RDTL-D013"
    assert caught(tmp_path / "none.hdf5").problem.code == "RDTL-D014"


def said(data: h5py.Group, information: object) -> None:
    data.attrs["problem_info"] = json.dumps(information)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda data: data.attrs.__setitem__("obs_action_alignment", "during"), "RDTL-D027"),
        (lambda data: said(data, {}), "RDTL-D020"),
        (lambda data: said(data, "put it there"), "RDTL-D020"),
        (lambda data: said(data, ["put it there"]), "RDTL-D020"),
        (lambda data: said(data, {"language_instruction": None}), "RDTL-D020"),
        (lambda data: said(data, {"language_instruction": ["put", 1]}), "RDTL-D020"),
        (lambda data: said(data, {"language_instruction": {"en": "put it"}}), "RDTL-D020"),
        (lambda data: data.attrs.__delitem__("bddl_file_name"), "RDTL-D014"),
        (lambda data: data["demo_2"].__delitem__("actions"), "RDTL-D014"),
        (lambda data: (data.__delitem__("demo_2"), data.__delitem__("demo_10")), "RDTL-D014"),
    ],
)
def test_what_is_missing_has_a_code(change: Any, code: str, tmp_path: Path) -> None:
    path = synthetic.write(tmp_path / "a.hdf5", two_demos())
    with h5py.File(path, "r+") as file:
        change(file["data"])
    assert caught(path).problem.code == code


def test_attributes_may_be_bytes(tmp_path: Path) -> None:
    """As other tools write texts of a fixed length."""
    path = synthetic.write(tmp_path / "a.hdf5", two_demos())
    expected = open_store(path)
    with h5py.File(path, "r+") as file:
        for name, value in file["data"].attrs.items():
            file["data"].attrs[name] = np.bytes_(value)
    found = open_store(path)
    assert found.episodes == expected.episodes
    assert found.conventions == expected.conventions
