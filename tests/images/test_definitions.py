"""Definitions and locks: what may stand in them, and that they agree with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from launcher import config
from launcher.core.errors import UsageError
from launcher.images import definition
from launcher.images.builder import Builder
from launcher.images.definition import Definition

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "configs" / "images"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
PINNED = re.compile(r"[A-Za-z0-9._-]+==[^\s;]+( ; .+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def test_the_six_definitions_are_there() -> None:
    assert (
        sorted(f"{what}-{how}" for what in ("train", "sim", "all") for how in ("cpu", "gpu"))
        == NAMES
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_line_of_a_lock_is_a_pinned_package_or_its_hash(name: str) -> None:
    _, lock = definition.load(name)
    lines = [line for line in lock.text.splitlines() if not line.startswith("#")]
    assert lines
    strange = [line for line in lines if not PINNED.fullmatch(line) and not HASH.fullmatch(line)]
    assert strange == []  # no index, no address, no path


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_holds_the_build_of_torch_that_fits(name: str) -> None:
    wanted, lock = definition.load(name)
    packages = lock.packages()
    nvidia = [package for package in packages if package.startswith("nvidia-")]
    if "train" not in wanted.extras:
        assert "torch" not in packages
    elif wanted.gpu:
        assert "+" not in packages["torch"]
        assert nvidia
    else:
        assert packages["torch"].endswith("+cpu")
    assert wanted.gpu or nvidia == []


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_holds_every_package_of_its_extras_as_constrained(name: str) -> None:
    wanted, lock = definition.load(name)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [item for extra in wanted.extras for item in project["optional-dependencies"][extra]]
    names = {re.split(r"[<>=!~]", item)[0] for item in asked}
    packages = lock.packages()
    assert names | {"pip", "setuptools", "wheel"} <= packages.keys()
    text = (ROOT / "constraints.txt").read_text()
    for package, version in re.findall(r"^([a-z0-9-]+)==(\S+)", text, flags=re.MULTILINE):
        assert packages.get(package, version).removesuffix("+cpu") == version


def test_the_union_of_training_and_simulator_is_what_the_all_images_hold() -> None:
    for how in ("cpu", "gpu"):
        train, sim, both = (definition.load(f"{what}-{how}")[0] for what in ("train", "sim", "all"))
        assert set(both.imports) == set(train.imports) | set(sim.imports)
        assert both.tests == train.tests + sim.tests
        assert both.ops == train.ops


def test_images_for_gpus_bring_what_drawing_and_infiniband_need() -> None:
    for name in ("sim-gpu", "all-gpu"):
        wanted, _ = definition.load(name)
        assert "graphics" in wanted.environment["NVIDIA_DRIVER_CAPABILITIES"].split(",")
        assert wanted.environment["MUJOCO_GL"] == "egl"
    for name in ("train-gpu", "all-gpu"):
        wanted, _ = definition.load(name)
        assert {"libibverbs1", "rdma-core"} <= set(wanted.apt)


def sim() -> dict[str, object]:
    return yaml.safe_load((FOLDER / "sim-cpu.yaml").read_text())


@pytest.mark.parametrize(
    "change",
    [
        {"packages": ["vim"]},  # unknown key
        {"base": "debian:12"},  # a tag moves
        {"apt": ["vim; rm -rf /"]},  # words go into a shell line
        {"environment": {"MUJOCO_GL": '"$(id)"'}},
        {"title": "line\nbreak"},
        {"tests": ["none"]},
    ],
)
def test_a_definition_with_a_mistake_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="RDTL-U001"):
        config.validate(Definition, {**sim(), **change}, "test")


def test_an_unknown_key_of_a_builder_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="nearest valid key is pip_config"):
        config.validate(Builder, {"pipconfig": "/etc/pip.conf"}, "test")


def test_a_definition_without_a_lock_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "configs" / "images").mkdir(parents=True)
    (tmp_path / "configs" / "images" / "mine.yaml").write_text(yaml.safe_dump(sim()))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="RDTL-C027"):
        definition.load("mine")
