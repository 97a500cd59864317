"""What an evaluation consists of: every planned episode once, whoever runs which part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher import config as configs
from launcher import presets, sites
from launcher.cli.evaluate import with_network, with_server
from launcher.core.checks import Finding
from launcher.core.errors import UsageError
from launcher.core.runs import RunDir
from launcher.doctor import configuration
from launcher.doctor.subject import Subject, as_json
from launcher.schema import Evaluate, RunConfig, Task
from launcher.sites import Site
from rdt.spec import planned, suites


def run_config(task: dict[str, Any] | None = None, **evaluate: Any) -> RunConfig:
    """A configuration that evaluates."""
    return RunConfig(name="test", task=Task(**task or {}), evaluate=Evaluate(**evaluate))


def limits(config: RunConfig) -> list[Finding]:
    """What `rdtl doctor` and every submission say of the length of its episodes."""
    return configuration.limits(Subject("local", Site(kind="local"), Path(), as_json(config)))


def plan(config: RunConfig) -> planned.Planned:
    """Its plan, from the JSON that jobs read."""
    return planned.from_config(config.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("name", "tasks", "each", "suites_named"),
    [
        ("published", 40, 50, 4),
        ("full", 130, 20, 5),
        ("smoke", 5, 3, 1),
        ("notes", 90, 10, 1),
        ("openvla-sequential", 40, 50, 4),
        ("demo", 1, 20, 1),
        ("plus", 10_030, 1, 28),
    ],
)
def test_presets_hold_what_they_promise(
    name: str, tasks: int, each: int, suites_named: int
) -> None:
    path = configs.find("evaluate", name)
    config = configs.load_run_config(path, [], ["evaluate"])
    found = plan(config)
    assert (len(found.tasks), found.per_task) == (tasks, each)
    assert len({suite for suite, _ in found.tasks}) == suites_named
    assert [found.severity for found in limits(config)] == ["ok"]
    assert config.evaluate is not None
    sequential = config.evaluate.reset == "openvla-sequential"
    assert sequential == (name == "openvla-sequential")


@given(
    chosen=st.dictionaries(
        st.sampled_from(sorted(suites.SUITES)),
        st.lists(st.integers(0, 9), unique=True, max_size=4),
        min_size=1,
    ),
    states=st.integers(1, 5),
    trials=st.integers(1, 3),
    count=st.integers(1, 60),
)
def test_parts_cover_everything_once_and_are_equal(
    chosen: dict[str, list[int]], states: int, trials: int, count: int
) -> None:
    found = plan(
        run_config(
            suites=chosen, policies=["expert", "zero"], init_states=(0, states), trials=trials
        )
    )
    shares = [found.share(index, count) for index in range(count)]
    keys = [key for share in shares for key in share]
    assert sorted(keys) == sorted(found.key(n) for n in range(len(found)))
    assert len(set(keys)) == len(keys) == len(found)
    for policy in found.policies:
        sizes = [sum(key.policy == policy for key in share) for share in shares]
        assert max(sizes) - min(sizes) <= 1


def test_a_part_has_few_tasks() -> None:
    """Each task of LIBERO costs a simulator."""
    found = plan(run_config(suites={"libero_goal": []}, policies=["zero"], init_states=(0, 50)))
    for share in (found.share(index, 7) for index in range(7)):
        assert len({(key.suite, key.task_id) for key in share}) <= 3


def test_without_suites_it_is_the_one_task() -> None:
    found = plan(run_config({"suite": "libero_goal", "task_id": 3}, policies=["zero"]))
    assert found.tasks == (("libero_goal", 3),)


def test_a_task_that_is_named_twice_is_planned_once() -> None:
    """Numbered twice, one of both would be missing for ever."""
    found = plan(run_config(suites={"libero_goal": [3, 0, 3]}, policies=["zero"]))
    assert found.tasks == (("libero_goal", 3), ("libero_goal", 0))


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"libero_goal": [3, 10]}, "no task 10 in a suite 'libero_goal'"),
        ({"libero_pro_future": []}, "is not known"),
    ],
)
def test_tasks_that_do_not_exist(chosen: dict[str, list[int]], said: str) -> None:
    with pytest.raises(UsageError, match="RDTL-U020") as caught:
        plan(run_config(suites=chosen))
    assert said in caught.value.problem.what


@pytest.mark.parametrize(
    ("task", "evaluate", "code"),
    [
        ({"suite": "libero_goal", "task_id": 10}, {}, "RDTL-U020"),
        ({}, {"init_states": (30, 51)}, "RDTL-U021"),
        ({}, {"suites": {"libero_goal_swap": [0]}, "init_states": (50, 60)}, "RDTL-U021"),
        ({}, {"policies": []}, "RDTL-U005"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_is_started(
    tmp_path: Path, task: dict[str, Any], evaluate: dict[str, Any], code: str
) -> None:
    config = run_config(task, **{"policies": ["zero"], **evaluate})
    with pytest.raises(UsageError, match=code):
        presets.pipeline(config, "local", sites.load("local"), RunDir(tmp_path), None)


@pytest.mark.parametrize("section", ["collect", "evaluate"])
@pytest.mark.parametrize("states", [[30, 20], [-5, 5], [3, 3]])
def test_initial_states_that_are_none_are_refused(section: str, states: list[int]) -> None:
    with pytest.raises(UsageError, match="RDTL-U001") as caught:
        configs.validate(RunConfig, {"name": "test", section: {"init_states": states}}, "here")
    assert f"{section}.init_states: 0 <= first < end is wanted" in caught.value.problem.what


def test_limits_are_the_published_ones_unless_set() -> None:
    assert [suites.max_steps(name, None) for name in suites.SUITES] == [220, 280, 300, 520, 400]
    assert suites.max_steps("libero_10_swap", None) == 520
    assert suites.max_steps("libero_90", 100) == 100
    with pytest.raises(UsageError, match="RDTL-E070"):
        suites.max_steps("robocasa", None)
    for suite in suites.SUITES.values():
        assert suite.max_steps >= suite.longest_demonstration


def test_a_limit_below_the_demonstrations_is_warned_of() -> None:
    config = run_config({"max_steps": 280}, suites={"libero_object": [], "libero_10": []})
    (found,) = limits(config)
    assert (found.code, found.severity) == ("RDTL-E032", "warning")
    assert "libero_10" in found.what and "505" in found.why


def test_a_server_takes_the_place_of_the_checkpoint() -> None:
    config = with_server(run_config(policies=["rdt", "zero"]), "ws://localhost:8000", None)
    assert config.evaluate is not None
    assert config.evaluate.policies == ["server", "zero"]
    assert configs.validate(RunConfig, config.model_dump(), "here") == config
    with pytest.raises(UsageError, match="RDTL-U006"):
        with_server(run_config(checkpoint="/there"), "ws://localhost:8000", None)
    for wrong in ({"policies": ["server"]}, {"server": "ws://x", "policies": ["rdt", "server"]}):
        with pytest.raises(UsageError, match="RDTL-U001"):
            configs.validate(RunConfig, {"name": "test", "evaluate": wrong}, "here")


def test_a_checkpoint_beside_the_server_of_a_configuration_is_refused() -> None:
    """The records of rdt would carry the server's protocol."""
    served = run_config(policies=["server", "zero"], server="ws://there", checkpoint="/here")
    with pytest.raises(UsageError, match="RDTL-U006") as caught:
        with_network(served)
    assert "evaluate.server ws://there" in caught.value.problem.where


@pytest.mark.parametrize("uri", ["localhost:8000", "http://me:8000", "ws://", "ws://:80", ""])
def test_a_server_that_no_job_could_reach_is_refused_before_there_is_one(uri: str) -> None:
    with pytest.raises(UsageError, match="RDTL-U001") as refused:
        with_server(run_config(policies=["rdt"]), uri, None)
    assert "ws://HOST:PORT" in refused.value.problem.what
    for fine in ("wss://proxy/policy", "ws://[::1]:8000"):
        with_server(run_config(policies=["rdt"]), fine, None)


def test_too_much_memory_for_a_site_names_the_workers_that_ask_for_it() -> None:
    small = Site(kind="local", max_memory_per_node_mb=3000)
    fixes = []
    for workers in (1, 8):
        config = run_config(policies=["zero"], workers=workers)
        with pytest.raises(UsageError, match="RDTL-U007") as refused:
            presets.pipeline(config, "here", small, RunDir(Path("/run")), None)
        fixes.append(refused.value.problem.fix)
    assert "evaluate.workers" not in fixes[0]
    assert "lower evaluate.workers (each takes 3200 MB)" in fixes[1]
