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


def replay_frames(
    simulator: Simulator, record: Record, actions: NDArray[np.float32]
) -> list[NDArray[np.uint8]]:
    """Frames (S, S, 3), upright, of the episode that executed ``actions`` (T, 7).

    Raises RdtlError RDTL-E041 when the replay ends otherwise than the record says.
    """
    simulator.reset(record.init_state)
    frames = [_upright(simulator)]
    successes = []
    for step, action in enumerate(actions, start=1):
        show = step % EVERY == 0 or step == len(actions)
        successes.append(simulator.step(action, render=show))
        if show:
            frames.append(_upright(simulator))
    expected = [False] * (record.steps - 1) + [record.status == "success"]
    if successes != expected:
        raise RdtlError(
            "RDTL-E041",
            "replaying an episode gave another outcome than its record",
            where=f"{record.key.text()}: recorded {record.status} after {record.steps} steps",
            why="the video would show another episode than the table counts",
            fix="evaluate again under another name; report it if it happens again",
        )
    return frames


def _upright(simulator: Simulator) -> NDArray[np.uint8]:
    """Raw pictures are bottom row first; this is the one turn that does not mirror them."""
    return np.ascontiguousarray(simulator.observation().pictures[CAMERA][::-1])


def write_mp4(path: Path, frames: list[NDArray[np.uint8]]) -> None:
    """Write ``frames`` as H.264 in yuv420p, which every browser plays; whole or not at all."""
    height, width, _ = frames[0].shape
    with whole_file(path) as temporary:
        writer = imageio_ffmpeg.write_frames(
            str(temporary),
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
