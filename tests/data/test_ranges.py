"""Byte ranges: whole or an error, however long, and the disk's state as the kernel tells it."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest

from launcher.core.errors import RdtlError
from rdt.data.ranges import QUIET_BATCHES, ROWS_AT_ONCE, ByteFile, Disk

ROWS = 3 * ROWS_AT_ONCE + 7


@pytest.fixture
def rows(tmp_path: Path) -> tuple[ByteFile, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """A file of numbered rows behind 11 other bytes."""
    values = np.arange(ROWS * 16).reshape(ROWS, 16).astype(np.uint8)
    (tmp_path / "a").write_bytes(bytes(11) + values.tobytes())
    return ByteFile(tmp_path / "a"), values


def test_more_rows_than_one_call_takes(
    rows: tuple[ByteFile, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]],
) -> None:
    file, values = rows
    out = np.zeros((ROWS, 2, 16), np.uint8)
    file.read_into(11, out[:, 1])
    np.testing.assert_array_equal(out[:, 1], values)
    assert not out[:, 0].any()
    np.testing.assert_array_equal(file.mapped()[11:], values.reshape(-1))


def test_what_is_missing_is_told(
    rows: tuple[ByteFile, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]],
) -> None:
    file, values = rows
    file.require_whole()
    os.truncate(file.path, file.size - 1)
    for action in (
        lambda: file.read_into(11, np.zeros_like(values)),
        lambda: file.read(file.size - 16, 16),
        file.require_whole,
    ):
        with pytest.raises(RdtlError) as error:
            action()
        assert error.value.problem.code == "RDTL-D013"
        assert str(file.path) in error.value.problem.where


def test_the_disk_is_idle_once_everything_is_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(os.urandom(1 << 20))
    os.sync()
    descriptor = os.open(path, os.O_RDONLY)
    disk = Disk()

    def read(evict: bool) -> bool:
        if evict:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        blocks = resource.getrusage(resource.RUSAGE_THREAD).ru_inblock
        os.pread(descriptor, 1 << 20, 0)
        if evict and resource.getrusage(resource.RUSAGE_THREAD).ru_inblock == blocks:
            pytest.skip("there is no disk under the folder of this test")
        disk.look()
        return disk.busy

    quiet = [read(evict=False) for _ in range(QUIET_BATCHES + 2)]
    assert quiet[0]
    assert not quiet[-1]
    assert read(evict=True)
    assert [read(evict=False) for _ in range(QUIET_BATCHES)] == [True] * (QUIET_BATCHES - 1) + [
        False
    ]
    os.close(descriptor)
