"""Frames of a video by their number, exactly.

The packets' own time stamps say which frame is which: sorted, the k-th belongs to frame
k. A seek aims between two of them, so rounding cannot miss; a nominal frame rate is never
used. Decoding is done by the ffmpeg binary of imageio-ffmpeg, one process for each run of
neighbouring frames (some 50 ms), and decoded blocks are kept for a while.
"""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RdtlError
from rdt.data.kept import Kept

BLOCK = 32
TIMEOUT_S = 600


class Video:
    """One file with one video stream; frames are numbered from 0 in showing order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.times = _times(path)

    def __len__(self) -> int:
        return len(self.times)

    def decode(self, first: int, count: int, size: int) -> NDArray[np.uint8]:
        """Frames ``first`` … ``first + count - 1`` as (count, size, size, 3) uint8 RGB.

        Raises RdtlError RDTL-D032 when ffmpeg cannot, or shows another number of them.
        """
        if first + count > len(self):
            raise broken(self.path, f"it has {len(self)} frames, {first + count} are asked for")
        seek = []
        if first > 0:
            between = (self.times[first - 1] + self.times[first]) / 2 - self.times[0]
            seek = ["-ss", f"{float(between):.6f}"]
        source = ["-i", str(self.path), "-map", "0:v:0", "-fps_mode", "passthrough"]
        shape = ["-frames:v", str(count), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        data = _ffmpeg(self.path, ["-err_detect", "explode", "-xerror", *seek, *source, *shape])
        expected = count * size * size * 3
        if len(data) != expected:
            raise broken(
                self.path,
                f"{len(data)} bytes for frames {first} … {first + count - 1} of {size} x {size} "
                f"pixels, not {expected}",
            )
        return np.frombuffer(data, np.uint8).reshape(count, size, size, 3)


class VideoCache:
    """Frames of many videos; the blocks used last are kept."""

    def __init__(self) -> None:
        self._videos: dict[Path, Video] = {}
        self._blocks: Kept[NDArray[np.uint8]] = Kept()

    def video(self, path: Path) -> Video:
        """The video at ``path``; its packets are listed when it is first asked for."""
        if path not in self._videos:
            self._videos[path] = Video(path)
        return self._videos[path]

    def read(self, path: Path, first: int, out: NDArray[np.uint8]) -> None:
        """Fill ``out`` (n, S, S, 3) with frames from ``first`` on."""
        end, size = first + len(out), out.shape[1]
        wanted = range(first // BLOCK, (end - 1) // BLOCK + 1)
        found = {number: self._blocks.get((path, number)) for number in wanted}
        missing = [number for number, block in found.items() if block is None]
        if missing:
            found |= self._decode(path, missing[0], missing[-1], size)
        for number, block in found.items():
            assert block is not None
            start = number * BLOCK
            low, high = max(first, start), min(end, start + BLOCK)
            out[low - first : high - first] = block[low - start : high - start]

    def _decode(self, path: Path, first: int, last: int, size: int) -> dict[int, NDArray[np.uint8]]:
        """Blocks ``first`` … ``last`` by their number, from now on kept."""
        video = self.video(path)
        start, end = first * BLOCK, min((last + 1) * BLOCK, len(video))
        frames = video.decode(start, end - start, size)
        blocks = {}
        for number in range(first, last + 1):
            place = number * BLOCK - start
            blocks[number] = frames[place : place + BLOCK].copy()
            self._blocks.put((path, number), blocks[number])
        return blocks


def _times(path: Path) -> list[Fraction]:
    """When each frame is shown, in seconds, sorted; nothing is decoded."""
    listing = _ffmpeg(path, ["-i", str(path), "-map", "0:v:0", "-c", "copy", "-f", "framecrc", "-"])
    base, stamps = Fraction(0), []
    for line in listing.decode().splitlines():
        if line.startswith("#tb 0:"):
            base = Fraction(line.split(":")[1].strip())
        elif not line.startswith("#"):
            stamps.append(int(line.split(",")[2]))
    if not stamps or base == 0 or len(set(stamps)) != len(stamps):
        raise broken(path, f"{len(stamps)} packets, {len(set(stamps))} different time stamps")
    return [base * stamp for stamp in sorted(stamps)]


def _ffmpeg(path: Path, arguments: list[str]) -> bytes:
    """Standard output of ffmpeg; RdtlError RDTL-D014 without a file, D032 when it fails."""
    import imageio_ffmpeg  # only sets with videos need it

    if not path.is_file():
        raise RdtlError(
            "RDTL-D014",
            "a video of the data set is missing",
            where=str(path),
            why="the description of the data set names it",
            fix="copy the data set again, with its videos",
        )
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error"]
    try:
        done = subprocess.run(
            [*program, *arguments], capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise broken(path, f"ffmpeg did not end within {TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise broken(path, done.stderr.decode(errors="replace").strip()[-300:])
    return done.stdout


def broken(path: Path, why: str) -> RdtlError:
    """The error for a video that cannot be shown as its description promises."""
    return RdtlError(
        "RDTL-D032",
        "a video cannot be decoded",
        where=str(path),
        why=why,
        fix="copy this file again from its source; it was left as it is",
    )
