"""Video of an episode by replaying its recorded actions, which is exact."""

from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RdtlError
from launcher.core.files import whole_file
from rdt.sim.libero import Simulator
from rdt.spec.record import Record

CAMERA = "agentview"
EVERY = 2  # control steps between frames
FPS = 10  # 20 control steps a second: real time


class ReplayError(Exception):
    """Replaying gave another episode than the record; a video of it would be untrue."""


def replay_frames(
    simulator: Simulator, record: Record, actions: NDArray[np.float32]
) -> list[NDArray[np.uint8]]:
    """Frames (S, S, 3), upright, of the episode that executed ``actions`` (T, 7).

    Raises ReplayError when scene, course or final state are not those of the record.
    """
    simulator.reset(record.init_state)
    if simulator.fixtures_sha256 != record.fixtures_sha256:
        raise ReplayError("the furniture of the replay stands elsewhere than in the record")
    frames = [_upright(simulator)]
    successes = []
    for step, action in enumerate(actions, start=1):
        show = step % EVERY == 0 or step == len(actions)
        successes.append(simulator.step(action, render=show))
        if show:
            frames.append(_upright(simulator))
    expected = [False] * (record.steps - 1) + [record.status == "success"]
    if successes != expected:
        first = successes.index(True) + 1 if any(successes) else None
        ended = f"success at step {first}" if first else f"no success in {len(actions)} steps"
        raise ReplayError(f"the replay gave {ended}, not {record.status} after {record.steps}")
    if simulator.state_sha256() != record.state_sha256:
        raise ReplayError("the replay ended in another state of the simulator than the record")
    return frames


def _upright(simulator: Simulator) -> NDArray[np.uint8]:
    """Raw pictures are bottom row first; this is the one turn that does not mirror them."""
    return np.ascontiguousarray(simulator.observation().pictures[CAMERA][::-1])


def write_mp4(path: Path, frames: list[NDArray[np.uint8]]) -> None:
    """Write ``frames`` as H.264 in yuv420p, which every browser plays; whole or not at all.

    Raises RdtlError RDTL-E076 when ffmpeg could not, whose exit status nobody tells.
    """
    with whole_file(path) as temporary:
        written, said = 0, ""
        try:
            _encode(temporary, frames)
            written, _ = imageio_ffmpeg.count_frames_and_secs(str(temporary))
        except (OSError, RuntimeError) as error:
            said = " ".join(str(error).split())[:300]
        if written != len(frames):
            raise RdtlError(
                "RDTL-E076",
                f"ffmpeg wrote {written} of {len(frames)} frames of a film",
                where=f"{path}: {said}".rstrip(": "),
                why="often the disk is full; a film that is cut looks like another episode",
                fix="df -h shows the room; the same command makes the films that are missing",
            )


def _encode(path: Path, frames: list[NDArray[np.uint8]]) -> None:
    height, width, _ = frames[0].shape
    writer = imageio_ffmpeg.write_frames(
        str(path),
        (width, height),
        fps=FPS,
        codec="libx264",
        pix_fmt_out="yuv420p",
        output_params=["-f", "mp4", "-movflags", "+faststart", "-threads", "1"],
    )
    writer.send(None)
    for frame in frames:
        writer.send(frame)
    writer.close()
