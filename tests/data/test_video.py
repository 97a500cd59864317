"""Frames by number: exact for every codec, group of pictures and rate that is in use."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from launcher.core.errors import RdtlError
from rdt.data.video import BLOCK, Video, VideoCache
from tests.data import writers

FRAMES = 90


def numbered(
    count: int = FRAMES, size: int = 64
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Pictures that tell their number in seven stripes of black and white."""
    bits = (np.arange(count)[:, None] >> np.arange(7)) & 1
    stripes = np.repeat(bits * 200 + 20, size // 8, axis=1)
    rows = np.pad(stripes, ((0, 0), (0, size - stripes.shape[1]))).astype(np.uint8)
    return np.broadcast_to(rows[:, None, :, None], (count, size, size, 3)).copy()


def number(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> int:
    stripes = picture[16:48, :56].reshape(32, 7, 8, 3).mean(axis=(0, 2, 3)) > 120
    return int((stripes << np.arange(7)).sum())


CODECS = {
    "lossless, B-frames": writers.LOSSLESS,
    "AV1 as LeRobot writes it": writers.AV1,
    "H.264, one key frame": ("-c:v", "libx264", "-g", "250", "-pix_fmt", "yuv420p"),
    "odd times": (
        *("-c:v", "libx264", "-g", "30", "-pix_fmt", "yuv420p"),
        *("-fps_mode", "vfr", "-enc_time_base", "1:90000"),
        *("-vf", "settb=1/90000,setpts=(0.7+N/29.97+0.011*mod(N\\,3))/TB"),
    ),
}


@pytest.mark.parametrize("codec", CODECS)
def test_any_frame_is_the_one_asked_for(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    writers.write_video(numbered(), path, CODECS[codec])
    video = Video(path)
    assert len(video) == FRAMES
    for first in (0, 1, 11, 12, 37, FRAMES - 1):
        count = min(5, FRAMES - first)
        found = [number(picture) for picture in video.decode(first, count, 64)]
        assert found == list(range(first, first + count))


def test_the_cache_gives_any_run_and_keeps_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    truth = numbered()
    writers.write_video(truth, path, writers.LOSSLESS)
    block_bytes = BLOCK * truth[0].nbytes
    monkeypatch.setattr("rdt.data.kept.KEPT_BYTES", 2 * block_bytes)
    cache = VideoCache()
    for first, n in ((BLOCK - 2, 4), (0, FRAMES), (FRAMES - 1, 1), (3, 1)):
        out = np.zeros((n, 64, 64, 3), np.uint8)
        cache.read(path, first, out)
        np.testing.assert_array_equal(out, truth[first : first + n])
        assert cache._blocks.nbytes <= 2 * block_bytes


def test_a_cut_video_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    writers.write_video(numbered(), path, writers.LOSSLESS)
    content = path.read_bytes()
    for share in (0.0, 0.3, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(RdtlError) as error:
            Video(path).decode(0, FRAMES, 64)
        assert error.value.problem.code == "RDTL-D032"
        assert str(path) in error.value.problem.where


def test_a_video_whose_data_are_cut_but_whose_index_is_whole(tmp_path: Path) -> None:
    """With the index in front every packet is promised: the missing ones are an error."""
    path, front = tmp_path / "a.mp4", tmp_path / "front.mp4"
    writers.write_video(numbered(), path, writers.LOSSLESS)
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-c", "copy"]
    subprocess.run([*program, "-movflags", "+faststart", str(front)], check=True, timeout=60)
    front.write_bytes(front.read_bytes()[: int(0.7 * front.stat().st_size)])
    with pytest.raises(RdtlError) as error:
        Video(front).decode(FRAMES - 10, 10, 64)
    assert error.value.problem.code == "RDTL-D032"


def test_a_missing_video(tmp_path: Path) -> None:
    with pytest.raises(RdtlError) as error:
        Video(tmp_path / "none.mp4")
    assert error.value.problem.code == "RDTL-D014"
