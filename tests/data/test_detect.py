"""Conventions told from the data: right for every layout, contradictions named and stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from launcher.core.checks import Finding
from rdt.data import rotations, statistics_files
from rdt.data.checks import verify_set
from rdt.data.declared import DeclaredSet
from rdt.data.measuring import measure
from rdt.spec.contract import CONTRACTS, LIBERO_VELOCITY
from tests.cli.run_rdtl import rdtl
from tests.data import writers
from tests.data.writers import Demo

LAYOUTS = ("collected", "upstream", "regenerated", "rlds", "lerobot2", "lerobot3")
Change = Callable[[h5py.Group], None]


@pytest.fixture
def paths(
    request: pytest.FixtureRequest, demos: list[Demo], collected: Path, tmp_path: Path
) -> Callable[[str], Path]:
    def path(layout: str) -> Path:
        if layout == "upstream":
            return writers.write_upstream(demos, tmp_path, collected)
        if layout == "regenerated":
            return writers.write_regenerated(demos, tmp_path)
        return Path(request.getfixturevalue(layout))

    return path


@pytest.fixture
def spoiled(collected: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the collected file in which something is really changed in some demonstrations."""

    def spoil(change: Change, demos: tuple[str, ...] = ("demo_0", "demo_1")) -> Path:
        path = tmp_path / collected.name
        shutil.copy(collected, path)
        with h5py.File(path, "r+") as file:
            for name in demos:
                change(file["data"][name])
        return path

    return spoil


def look(path: Path, **declared: Any) -> list[Finding]:
    return verify_set(DeclaredSet(path, **declared), LIBERO_VELOCITY, None)


def errors(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.code: finding for finding in findings if finding.severity == "error"}


def only_error(findings: list[Finding]) -> Finding:
    (found,) = errors(findings).values()
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_real_demonstrations_are_what_they_are_declared(
    layout: str, paths: Callable[[str], Path]
) -> None:
    findings = look(paths(layout))
    assert errors(findings) == {}
    said = " | ".join(f.what for f in findings if f.severity == "ok")
    alignment = "after" if layout == "upstream" else "before"
    assert f"alignment: {alignment} (" in said
    assert "gripper: -1 opens (" in said
    assert "rotation: axis-angle (" in said
    assert "unit of the actions: raw (" in said


def scale(factor: float) -> Change:
    def change(demo: h5py.Group) -> None:
        demo["actions"][:, :3] = demo["actions"][:, :3] * factor

    return change


@pytest.mark.parametrize(
    ("factor", "found"), [(0.05, "metres"), (5.0, "centimetres"), (0.2, "another scale")]
)
def test_other_units(factor: float, found: str, spoiled: Callable[..., Path]) -> None:
    error = only_error(look(spoiled(scale(factor))))
    assert error.code == "RDTL-D001"
    assert error.what.startswith("unit of the actions: declared raw, the data say ")
    assert found in error.what


def flip(demo: h5py.Group) -> None:
    demo["actions"][:, 6] = -demo["actions"][:, 6]


def test_an_inverted_gripper_shows_both_and_passes_when_declared(
    spoiled: Callable[..., Path],
) -> None:
    path = spoiled(flip)
    error = only_error(look(path))
    assert error.code == "RDTL-D016"
    assert error.what == "gripper: declared -1 opens, the data say +1 opens"
    assert "--gripper-open 1," in error.fix
    assert errors(look(path, gripper_open=1)) == {}


@pytest.mark.parametrize("layout", ["rlds", "lerobot2"])
def test_an_inverted_copy(layout: str, demos: list[Demo], tmp_path: Path) -> None:
    sign = np.array([1, 1, 1, 1, 1, 1, -1])
    inverted = [
        replace(d, arrays=d.arrays | {"actions": d.arrays["actions"] * sign}) for d in demos
    ]
    small = [demo.part(200, every=4) for demo in inverted]
    if layout == "rlds":
        path = writers.write_rlds([writers.rlds_episode(d) for d in small], tmp_path / "set")
    else:
        path = writers.write_lerobot2(small, tmp_path / "set")
    assert only_error(look(path)).what == "gripper: declared -1 opens, the data say +1 opens"


def test_one_inverted_demonstration_among_others_is_named(spoiled: Callable[..., Path]) -> None:
    error = only_error(look(spoiled(flip, ("demo_1",))))
    assert error.what == "gripper: declared -1 opens, the data say both signs open"
    assert "1 contradict" in error.where
    assert "demo_1" in error.where


def test_gripper_of_openvla_s_loader(spoiled: Callable[..., Path]) -> None:
    """Commands in [0, 1], 1 = open: sign and range are both wrong."""

    def change(demo: h5py.Group) -> None:
        demo["actions"][:, 6] = 0.5 - demo["actions"][:, 6] / 2

    findings = look(spoiled(change))
    said = [f.what for f in findings if f.severity == "error"]
    assert "range of the gripper: declared -1 … 1, the data say 0 … 1" in said
    assert "gripper: declared -1 opens, the data say +1 opens" in said


def test_a_false_word_about_the_alignment(
    demos: list[Demo], collected: Path, tmp_path: Path
) -> None:
    """Upstream's rows in a file that says of itself that they are aligned."""
    path = writers.write_upstream(demos, tmp_path, collected)
    with h5py.File(path, "r+") as file:
        file["data"].attrs["obs_action_alignment"] = "before"
    error = only_error(look(path))
    assert error.code == "RDTL-D027"
    assert error.what == "alignment: declared before, the data say after"


def test_aligned_rows_taken_for_upstream_s(collected: Path, tmp_path: Path) -> None:
    """Our file without its own attribute looks like upstream's and would be shifted."""
    path = tmp_path / collected.name
    shutil.copy(collected, path)
    with h5py.File(path, "r+") as file:
        del file["data"].attrs["obs_action_alignment"]
    error = only_error(look(path))
    assert error.what == "alignment: declared after, the data say before"
    assert errors(look(path, alignment="before")) == {}


def test_an_rlds_copy_made_of_upstream_s_rows(demos: list[Demo], tmp_path: Path) -> None:
    """RLDS cannot say of itself that its observations are late; the data do."""
    late = []
    for demo in demos:
        cut = {
            name: values[1:] if name.startswith("obs/") else values[:-1]
            for name, values in demo.arrays.items()
        }
        late.append(writers.rlds_episode(replace(demo, arrays=cut).part(200, every=4)))
    path = writers.write_rlds(late, tmp_path / "set")
    assert only_error(look(path)).what == "alignment: declared before, the data say after"
    assert errors(look(path, alignment="after")) == {}


@pytest.mark.parametrize("quaternion", ["there", "absent", "zeros"])
def test_euler_angles_for_axis_angle(quaternion: str, spoiled: Callable[..., Path]) -> None:
    """Told from the quaternion, and without one from how the hand turns when it is told to."""

    def change(demo: h5py.Group) -> None:
        columns = rotations.axis_angle_to_6d(demo["obs/ee_ori"][:])
        demo["obs/ee_ori"][:] = rotations.euler_of_6d(columns)
        if quaternion == "absent":
            del demo["robot_states"]
        if quaternion == "zeros":
            demo["robot_states"][:] = 0

    error = only_error(look(spoiled(change)))
    assert error.code == "RDTL-D015"
    assert error.what == "rotation: declared axis-angle, the data say euler"
    assert ("quaternion" in error.where) == (quaternion == "there")


def test_turns_are_small_rotations_in_the_world() -> None:
    """The derivative of a known motion: 0.01 rad about a slanting axis, from any attitude."""
    axis = np.array([0.01, -0.02, 0.005])
    start = rotations.axis_angle_to_6d([3.0, 0.4, -0.2]).reshape(2, 3)
    step = np.eye(3) + np.cross(axis, np.eye(3) * -1)  # v -> v + axis x v
    found = rotations.turns(np.stack([start.ravel(), (start @ step.T).ravel()]))
    np.testing.assert_allclose(found[0], axis, atol=2e-4)


def test_commands_that_move_nothing_tell_nothing(spoiled: Callable[..., Path]) -> None:
    """Shuffled commands contradict no declaration; it is said that nothing could be told."""

    def change(demo: h5py.Group) -> None:
        random = np.random.default_rng(0)
        demo["actions"][:, :3] = random.permuted(demo["actions"][:, :3], axis=0)

    findings = look(spoiled(change))
    assert errors(findings) == {}
    (told,) = [f for f in findings if f.code == "RDTL-D027"]
    assert (told.severity, "do not tell" in told.what) == ("info", True)


def test_missing_joints_and_nan_are_findings(lerobot2: Path, spoiled: Callable[..., Path]) -> None:
    findings = verify_set(DeclaredSet(lerobot2), CONTRACTS["libero-raw-velocity"], None)
    assert only_error(findings).code == "RDTL-D034"

    def change(demo: h5py.Group) -> None:
        demo["actions"][7, 1] = np.nan

    found = [f for f in look(spoiled(change, ("demo_1",))) if f.severity == "error"]
    assert {f.code for f in found} == {"RDTL-D006"}
    assert all("demo_1" in f.where and "step 7" in f.where for f in found)


@pytest.mark.parametrize("format", statistics_files.FORMATS)
def test_statistics_of_other_data_are_told(
    format: str, collected: Path, spoiled: Callable[..., Path], tmp_path: Path
) -> None:
    slots = format == "rdt"
    path = tmp_path / "dataset_statistics.json"
    right = measure(DeclaredSet(collected), LIBERO_VELOCITY, slots=slots)
    statistics_files.write(path, format, {"a": right})
    assert errors(verify_set(DeclaredSet(collected), LIBERO_VELOCITY, path)) == {}
    metres = DeclaredSet(spoiled(scale(0.05)))
    wrong = measure(metres, LIBERO_VELOCITY, slots=slots)
    statistics_files.write(path, format, {"a": wrong})
    error = only_error(verify_set(DeclaredSet(collected), LIBERO_VELOCITY, path))
    assert (error.code, "digest" in error.where) == ("RDTL-D002", True)
    foreign = json.loads(path.read_text())
    (foreign.get("a", foreign)).pop("source")
    path.write_text(json.dumps(foreign))
    error = only_error(verify_set(DeclaredSet(collected), LIBERO_VELOCITY, path))
    assert (error.code, "0.05 times" in error.where) == ("RDTL-D002", True)


def test_the_command_stops_with_3(spoiled: Callable[..., Path], tmp_path: Path) -> None:
    path = spoiled(flip)
    done = rdtl("data", "verify", str(path), "--json", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    (error,) = [f for f in json.loads(done.stdout) if f["severity"] == "error"]
    assert error["what"] == "gripper: declared -1 opens, the data say +1 opens"
    good = rdtl("data", "verify", str(path), "--gripper-open", "1", cwd=tmp_path)
    assert good.returncode == 0, good.stderr
    wrong = rdtl("data", "verify", str(path), "--gripper-open", "0", cwd=tmp_path)
    assert wrong.returncode == 2


def test_ends_of_episodes_that_are_never_a_sample(spoiled: Callable[..., Path]) -> None:
    """What a sampler that draws below T - chunk loses, here for good: no picture of its own."""

    def change(demo: h5py.Group) -> None:
        steps = demo["obs/frame_step"][:]
        steps[-16:] = steps[-17]
        demo["obs/frame_step"][:] = steps

    error = only_error(look(spoiled(change, ("demo_1",))))
    assert error.code == "RDTL-D008"
    assert error.what == "the last steps of 1 of 2 episodes are never a sample"
    assert "demo_1" in error.where
