"""Checks of a demonstration file: what goes wrong silently when data are read.

Each returns findings; an `error` means that training on these data would waste
the time. Codes are those of the catalogue of known failures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from launcher.core.checks import Finding
from rdt.data import rotations
from rdt.data.demonstrations import Demonstrations, Episode
from rdt.data.statistics import Statistics, compute

LOOK_AHEAD = 4  # control steps in which the fingers visibly answer the gripper command


def pictures_readable(data: Demonstrations) -> list[Finding]:
    """First and last picture of every demonstration can be read and are not one colour."""
    S, found = data.camera_size, []
    out = np.empty((2, len(data.contract.cameras), S, S, 3), np.uint8)
    for index, episode in enumerate(data.episodes):
        if len(episode.sampled) == 0:
            continue  # windows_complete reports it
        ends = np.array([[index, row] for row in episode.sampled[[0, -1]]])
        data.pictures(ends, out)
        if (out.reshape(len(out), out.shape[1], -1).std(axis=-1) == 0).any():
            found.append(
                _error(data, "RDTL-D013", "a picture is one single colour", f"{episode.name}")
            )
    return found or [_ok("RDTL-D013", f"first and last picture of {len(data.episodes)} demos read")]


def values_finite(data: Demonstrations) -> list[Finding]:
    """States and actions hold no NaN or infinity."""
    found = [
        _error(data, "RDTL-D006", f"{name} holds NaN or infinity", episode.name)
        for episode in data.episodes
        for name, values in (("state", episode.state), ("actions", episode.actions))
        if not np.isfinite(values).all()
    ]
    return found or [_ok("RDTL-D006", "all states and actions are finite")]


def action_range(data: Demonstrations) -> list[Finding]:
    """Actions are LIBERO's raw numbers in [-1, 1], not metres or centimetres."""
    largest = np.max([np.abs(episode.actions).max(axis=0) for episode in data.episodes], axis=0)
    text = f"largest |action| per dimension: {', '.join(f'{x:.3g}' for x in largest)}"
    if (largest > 1.0 + 1e-9).any():
        return [_error(data, "RDTL-D001", "actions leave [-1, 1]", text)]
    if largest[:3].max() < 0.1:
        what = "translations are so small that they look like metres"
        return [_error(data, "RDTL-D001", what, text)]
    return [_ok("RDTL-D001", text)]


def gripper_sign(data: Demonstrations) -> list[Finding]:
    """Positive commands close the fingers: their sign against the later change of the width.

    Only moments count in which the fingers really move: most of the time they rest,
    open or on an object, whatever the command says.
    """
    commands, changes = [], []
    for episode in data.episodes:
        width = episode.gripper_qpos[:, 0] - episode.gripper_qpos[:, 1]
        command = np.sign(episode.actions[:, 6])
        steady = command[:-LOOK_AHEAD] == command[LOOK_AHEAD:]
        commands.append(command[:-LOOK_AHEAD][steady])
        changes.append((width[LOOK_AHEAD:] - width[:-LOOK_AHEAD])[steady])
    command, change = np.concatenate(commands), np.concatenate(changes)
    moving = np.abs(change) > 0.25 * np.abs(change).max(initial=0.0)
    if not moving.any():
        return [_error(data, "RDTL-D016", "the gripper never moves in these demonstrations", "")]
    agreement = float(np.mean(command[moving] * np.sign(change[moving])))
    if agreement > -0.5:
        what = f"positive gripper commands do not close the fingers (agreement {agreement:+.2f})"
        return [_error(data, "RDTL-D016", what, "actions[:, 6]")]
    return [_ok("RDTL-D016", f"-1 opens, +1 closes the gripper (agreement {agreement:+.2f})")]


def rotation_form(data: Demonstrations) -> list[Finding]:
    """`ee_ori` is axis-angle: it agrees with the recorded quaternion."""
    compared, worst = 0, 0.0
    for episode in data.episodes:
        if episode.quaternion is not None:
            compared += len(episode)
            worst = max(worst, _rotation_difference(episode))
    if compared and worst > 1e-3:
        what = (
            f"ee_ori is no axis-angle of the recorded quaternion (matrices differ by {worst:.2g})"
        )
        return [_error(data, "RDTL-D015", what, "obs/ee_ori, robot_states")]
    return [_ok("RDTL-D015", f"ee_ori agrees with the quaternion in {compared} rows")]


def _rotation_difference(episode: Episode) -> float:
    assert episode.quaternion is not None
    converted = np.stack([rotations.quat_to_axis_angle(q) for q in episode.quaternion])
    recorded = rotations.axis_angle_to_6d(episode.axis_angle)
    return float(np.abs(rotations.axis_angle_to_6d(converted) - recorded).max())


def windows_complete(data: Demonstrations) -> list[Finding]:
    """Every row with a picture is a sample, the last ones of an episode too."""
    counted = np.bincount(data.windows[:, 0], minlength=len(data.episodes))
    found = []
    for episode, count in zip(data.episodes, counted, strict=True):
        if len(episode.sampled) == 0 or count != len(episode.sampled):
            where = f"{episode.name}: {count} of {len(episode.sampled)} rows"
            found.append(_error(data, "RDTL-D008", "rows with pictures are no samples", where))
    return found or [_ok("RDTL-D008", f"{len(data.windows)} samples, one for each picture row")]


def statistics_sane(data: Demonstrations, statistics: Statistics) -> list[Finding]:
    """Finite, ordered, and no used slot without any spread."""
    found = []
    for name, slots in (
        ("state", data.contract.state_slots),
        ("action", data.contract.action_slots),
    ):
        summary = getattr(statistics, name)
        if not np.isfinite([summary.mean, summary.std, summary.q01, summary.q99]).all():
            found.append(_error(data, "RDTL-D006", f"{name} statistics are not finite", name))
        still = [slot for slot in slots if summary.std[slot] == 0]
        if still:
            what = f"{name} never changes in slots {still}"
            found.append(_error(data, "RDTL-D006", what, "standard deviation 0 on a used slot"))
    return found or [_ok("RDTL-D006", "statistics are finite, every used slot has spread")]


CHECKS: tuple[Callable[[Demonstrations], list[Finding]], ...] = (
    values_finite,
    pictures_readable,
    action_range,
    gripper_sign,
    rotation_form,
    windows_complete,
)


def verify(data: Demonstrations, statistics: Statistics) -> list[Finding]:
    """All findings about a data set and its statistics."""
    findings = [finding for check in CHECKS for finding in check(data)]
    return findings + statistics_sane(data, statistics)


def verify_file(path: Path) -> list[Finding]:
    """All findings about one demonstration file; raises RdtlError when it cannot be read."""
    data = Demonstrations(path)
    return verify(data, compute(data, path.parent.name, str(path)))


def _ok(code: str, what: str) -> Finding:
    return Finding(code, "ok", what)


def _error(data: Demonstrations, code: str, what: str, where: str) -> Finding:
    return Finding(
        code,
        "error",
        what,
        where=f"{data.path}: {where}" if where else str(data.path),
        why="a policy trained on these numbers could not succeed in the simulator",
        fix="collect the demonstrations again, or name a file in LIBERO's own conventions",
    )
