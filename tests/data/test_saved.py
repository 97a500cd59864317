"""A store out of the file beside a run is the store that was walked, or it is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from launcher.core.errors import RdtlError
from rdt.data import contents, libero
from rdt.data.saved import open_saved
from rdt.data.store import EpisodeStore, open_store
from tests.data import noise


def require_equal(found: EpisodeStore, expected: EpisodeStore) -> None:
    assert found.episodes == expected.episodes
    assert found.conventions == expected.conventions
    assert found.findings() == expected.findings()
    assert (found.cameras, found.picture_size) == (expected.cameras, expected.picture_size)
    pairs = [(found.actions, expected.actions), (found.sampled, expected.sampled)]
    pairs += zip(found.robot, expected.robot, strict=True)
    if expected.quaternion is not None:
        pairs.append((found.quaternion, expected.quaternion))
    for a, b in pairs:
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    steps = np.arange(0, len(expected), 9)
    for camera in expected.cameras:
        mine, theirs = np.zeros((2, len(steps), *2 * (expected.picture_size,), 3), np.uint8)
        found.frames(camera, steps, mine)
        expected.frames(camera, steps, theirs)
        np.testing.assert_array_equal(mine, theirs)
        assert theirs.any()


@pytest.mark.parametrize("layout", ["collected", "rlds", "lerobot2", "lerobot3"])
def test_what_was_kept_is_what_was_walked(
    layout: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every layout; the second opening reads no episode, and writes nothing beside the data."""
    path = request.getfixturevalue(layout)
    folder = path if path.is_dir() else path.parent
    before = sorted(folder.rglob("*"))
    expected = open_store(path)
    require_equal(open_saved(tmp_path, path), expected)
    monkeypatch.setattr("rdt.data.saved.walk", None)
    require_equal(open_saved(tmp_path, path), expected)
    assert len(list(tmp_path.iterdir())) == 1
    assert sorted(folder.rglob("*")) == before


def test_chunked_pictures_and_their_warning_are_kept(tmp_path: Path) -> None:
    path = noise.write(noise.demos((5, 9)), tmp_path / "set")
    with h5py.File(next(path.glob("*.hdf5")), "r+") as file:
        values = file["data/demo_1/obs/agentview_rgb"][:]
        del file["data/demo_1/obs/agentview_rgb"]
        file["data/demo_1/obs"].create_dataset("agentview_rgb", data=values, chunks=(3, 4, 8, 1))
    first = open_saved(tmp_path / "run", path)
    assert [finding.code for finding in first.findings()] == ["RDTL-D035"]
    require_equal(open_saved(tmp_path / "run", path), first)


def test_other_choices_are_kept_apart(tmp_path: Path) -> None:
    path = noise.write(noise.demos((5, 9, 7)), tmp_path / "set")
    assert len(open_saved(tmp_path / "run", path)) == 21
    for _ in range(2):
        assert len(open_saved(tmp_path / "run", path, demos=[1])) == 9
        store = open_saved(tmp_path / "run", path, gripper_open=1)
        np.testing.assert_array_equal(store.actions[:, 6], -open_store(path).actions[:, 6])


def test_data_that_changed_added_or_removed_are_refused(tmp_path: Path) -> None:
    path = noise.write(noise.demos((5, 9)), tmp_path / "set")
    file = next(path.glob("*.hdf5"))
    open_saved(tmp_path / "run", path)
    stat = file.stat()
    added = path / "more_demo.hdf5"
    shutil.copy(file, added)
    with pytest.raises(RdtlError, match="has changed") as error:
        open_saved(tmp_path / "run", path)
    assert error.value.problem.code == "RDTL-D028"
    assert f"{added}" in error.value.problem.where and "was not there" in error.value.problem.where
    added.unlink()
    os.utime(file, ns=(1, stat.st_mtime_ns + 1))
    with pytest.raises(RdtlError, match="has changed"):
        open_saved(tmp_path / "run", path)
    os.utime(file, ns=(1, stat.st_mtime_ns))
    assert len(open_saved(tmp_path / "run", path)) == 14
    file.rename(path / "other_demo.hdf5")
    with pytest.raises(RdtlError, match="has changed") as error:
        open_saved(tmp_path / "run", path)
    assert "no longer there" in error.value.problem.where


@pytest.mark.parametrize("damage", ["cut", "other file", "other header"])
def test_a_damaged_file_is_named_and_can_be_removed(damage: str, tmp_path: Path) -> None:
    path = noise.write(noise.demos((5, 9)), tmp_path / "set")
    open_saved(tmp_path / "run", path)
    kept = next((tmp_path / "run").iterdir())
    data = kept.read_bytes()
    kept.write_bytes(
        {
            "cut": data[: len(data) // 2],
            "other file": b"\x89HDF" * 100,
            "other header": data.replace(b"picture_size", b"pictures_ize"),
        }[damage]
    )
    with pytest.raises(RdtlError, match="cannot be read") as error:
        open_saved(tmp_path / "run", path)
    assert error.value.problem.code == "RDTL-D039"
    assert str(kept) in error.value.problem.where
    kept.unlink()
    assert len(open_saved(tmp_path / "run", path)) == 14


def test_no_file_of_the_set_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that starts again must not walk the headers of thousands of files."""
    path = noise.write(noise.demos((5, 9)), tmp_path / "set")
    open_saved(tmp_path / "run", path)

    def refuse(*_: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(libero.hdf5, "open_file", refuse)
    monkeypatch.setattr(contents, "walk", refuse)
    assert len(open_saved(tmp_path / "run", path)) == 14


def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    path = noise.write(noise.demos((5, 9)), tmp_path / "set")
    code = (
        "import sys; from pathlib import Path; from rdt.data.saved import open_saved; "
        "print(len(open_saved(Path(sys.argv[1]), Path(sys.argv[2]))))"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "run"), str(path)]
    started = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0].strip() for process in started] == ["14"] * 3
    assert len(list((tmp_path / "run").iterdir())) == 1, "no temporary file is left"
