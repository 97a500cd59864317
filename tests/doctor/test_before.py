"""The quick checks before a run: they refuse nothing that is right, and end nothing by breaking."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from launcher import checks, config, presets
from launcher.core.checks import Finding
from launcher.core.errors import UsageError
from launcher.core.runs import RunDir
from launcher.doctor import before, configuration, hub
from launcher.doctor.subject import Subject, of_command, of_plan
from launcher.schema import RunConfig
from launcher.sites import Site
from tests.doctor.conftest import subject

ZERO = {"policies": ["zero"]}


@pytest.fixture
def without_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which none of its packages is installed."""

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def errors(what: Subject) -> set[str]:
    return {one.what for one in before.findings(what) if one.severity == "error"}


def lacks_simulator(what: Subject) -> bool:
    return any(error.startswith("mujoco is not installed") for error in errors(what))


def planned(folder: Path, site: Site, **sections: Any) -> Subject:
    """What is asked about before a run of these sections is submitted."""
    run = RunDir(folder / "runs" / "one")
    config = RunConfig(name="one", **sections)
    return of_plan(presets.pipeline(config, "here", site, run, None), site, folder / "runs")


def command(folder: Path, site: Site) -> Subject:
    """The same before `rdtl run -- true`, or a recipe as a job of a site."""
    plan = presets.command(
        ["true"], "here", site, RunDir(folder / "runs" / "one"), None, nodes=1, gpus=0,
        per_gpu=False, working_directory=folder, minutes=1, memory_gb=0.1,
    )  # fmt: skip
    return of_plan(plan, site, folder / "runs")


@pytest.mark.usefixtures("without_simulator")
def test_only_what_runs_episodes_here_needs_a_simulator(tmp_path: Path) -> None:
    box = Site(kind="local", max_memory_per_node_mb=8000)
    assert errors(command(tmp_path, box)) == set()
    sets = {"sets": [{"path": str(tmp_path)}]}
    trained = planned(tmp_path, box, collect={}, dataset=sets, train={"steps": 1000})
    assert errors(trained) == set(), "it has data, so that it collects none"
    assert lacks_simulator(planned(tmp_path, box, evaluate=ZERO))
    assert lacks_simulator(planned(tmp_path, box, collect={}, train={"steps": 1000}))
    assert lacks_simulator(Subject("here", box, tmp_path / "runs")), "no run is named"


def test_a_command_on_a_node_that_is_too_small_for_a_simulator(tmp_path: Path) -> None:
    small = Site(kind="local", max_memory_per_node_mb=1000)
    assert errors(command(tmp_path, small)) == set()


@pytest.mark.usefixtures("without_simulator")
def test_the_environment_of_the_episodes_counts_and_no_other(tmp_path: Path) -> None:
    def told(**activate: str) -> bool:
        site = Site(kind="local", max_memory_per_node_mb=8000, activate=activate)
        sections = {"dataset": {"sets": [{"path": str(tmp_path)}]}, "train": {"steps": 1000}}
        return lacks_simulator(planned(tmp_path, site, evaluate=ZERO, **sections))

    assert told(train=". /venv/bin/activate")
    assert not told(evaluate=". /venv/bin/activate")
    assert not told(default=". /venv/bin/activate")


@pytest.mark.parametrize(("stage", "bare"), [("train", True), ("evaluate", False)])
def test_the_same_where_a_person_asks(home: Path, stage: str, bare: bool) -> None:
    (home / "configs/sites").mkdir(parents=True)
    text = f"kind: local\nactivate: {{{stage}: '. /venv/bin/activate'}}\n"
    (home / "configs/sites/box.yaml").write_text(text)
    asked = of_command("box", home / "runs", "evaluate/smoke", [], None)
    assert ("evaluate" in asked.bare, not asked.lacks("simulator")) == (bare, bare)


@pytest.mark.parametrize(
    ("asked", "fix"),
    [
        ("quick", "write KIND/NAME: demo/quick"),
        ("smok", "write KIND/NAME: demo/default, "),
        ("pipeline/demo", "write KIND/NAME: evaluate/demo, pipelines/demo, train/demo"),
    ],
)
def test_a_configuration_of_no_kind_is_told_of_which_it_may_be(
    home: Path, asked: str, fix: str
) -> None:
    with pytest.raises(UsageError, match="RDTL-U002") as refused:
        of_command("local", home / "runs", asked, [], None)
    assert refused.value.problem.fix.startswith(fix)


def test_the_word_that_doctor_takes_is_taken_by_the_command_that_runs_it(home: Path) -> None:
    (home / "configs/train").mkdir(parents=True)
    (home / "configs/train/own.yaml").write_text("{name: own}")
    for kind, name in [("evaluate", "smoke"), ("train", "own")]:
        assert config.find(kind, f"{kind}/{name}") == config.find(kind, name)
    with pytest.raises(UsageError, match="RDTL-U002"):
        config.find("train", "evaluate/smoke")


@pytest.mark.parametrize("there", ["policy", "demo/policy", "runs/demo/policy"])
def test_a_checkpoint_beside_the_configuration_is_a_path_as_in_it(home: Path, there: str) -> None:
    """`runs/demo/policy` was taken for the name of weights in a hub, which has no such names."""
    (home / there).mkdir(parents=True)
    for named in (there, "runs/of/another"):
        asked = of_command("local", home / "runs", "evaluate/demo", [], named)
        assert asked.named == str(home / named)
        missed = [one.where for one in configuration.places(asked) if one.severity != "ok"]
        assert missed == [asked.named] * (named != there)
    assert of_command("local", home / "runs", None, [], "me/weights").named == "me/weights"


def test_weights_are_looked_for_where_the_stage_that_loads_them_runs(home: Path) -> None:
    """A training without episodes counted as one in an image, and its cache was not looked at."""

    def told(**activate: str) -> set[tuple[str, bool]]:
        site = Site(kind="local", max_memory_per_node_mb=90_000, activate=activate)
        train = {"steps": 1000, "checkpoint": "me/weights", "language": str(home)}
        what = planned(home, site, dataset={"sets": [{"path": str(home)}]}, train=train)
        found = hub.findings(what)
        return {(one.code, "the hub's cache lacks it here" in one.what) for one in found}

    assert told() == {("RDTL-T036", True), ("RDTL-T020", True)}
    assert told(evaluate=". /venv/bin/activate") == {("RDTL-T036", True), ("RDTL-T020", True)}
    assert told(train=". /venv/bin/activate") == {("RDTL-T036", False), ("RDTL-T020", False)}


def test_a_quick_check_that_breaks_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> list[Finding]:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(checks, "disk", broken)
    found = before.findings(subject(tmp_path))
    (told,) = [one for one in found if "nobody knows" in one.what]
    assert (told.severity, told.where) == ("warning", "ZeroDivisionError: by nought")
    assert "RDTL-W002" in {one.code for one in found}, "the checks after it were made"
