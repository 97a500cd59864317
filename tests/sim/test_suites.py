"""The suites of the installed LIBERO: what is complete, what is not, and what is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from launcher.core.errors import RdtlError
from rdt.sim.libero import Simulator
from rdt.sim.tasks import find_task, instructions, task_ids
from rdt.spec import suites

pytestmark = pytest.mark.sim


@pytest.mark.parametrize("name", suites.KNOWN)
def test_every_suite_that_we_name_is_whole(name: str) -> None:
    assert len(task_ids(name)) == suites.KNOWN[name].tasks
    last = find_task(name, suites.KNOWN[name].tasks - 1)
    assert len(find_task(name, 0).init_states) == len(last.init_states) == suites.INIT_STATES
    assert last.bddl.is_file()


@pytest.mark.slow
def test_the_words_of_a_varied_task_are_its_own() -> None:
    """LIBERO-PRO keeps file names, which upstream reads instructions from."""
    assert find_task("libero_goal", 0).instruction == "open the middle drawer of the cabinet"
    assert find_task("libero_goal_swap", 0).instruction == "open the middle drawer of the cabinet"
    assert find_task("libero_goal_task", 0).instruction == "open the bottom drawer of the cabinet"
    for base in ("libero_spatial", "libero_object", "libero_goal", "libero_10"):
        usual = instructions(base)
        for axis, kept in (("lan", 0), ("task", 0), ("swap", 10), ("object", 10)):
            found = instructions(f"{base}_{axis}")
            assert sum(a == b for a, b in zip(usual, found, strict=True)) == kept
            assert all(words == words.lower() and words.strip(" .") == words for words in found)


@pytest.mark.parametrize("name", ["libero_goal_env", "libero_object_temp", "libero_10_object_ood"])
def test_a_suite_without_files_is_refused(name: str) -> None:
    with pytest.raises(RdtlError, match="RDTL-E028") as caught:
        find_task(name, 0)
    assert "libero_goal_swap" in caught.value.problem.fix


@pytest.mark.parametrize(
    "name",
    [
        "libero_goal_task",
        *(pytest.param(f"libero_object_{axis}", marks=pytest.mark.slow) for axis in suites.AXES),
    ],
)
def test_episodes_of_a_variant_repeat(task: dict[str, Any], name: str) -> None:
    simulator = Simulator({**task, "suite": name, "max_steps": None}, blind=True)
    assert simulator.task["max_steps"] == suites.KNOWN[name].max_steps
    seen = []
    for _ in range(2):
        simulator.reset(3)
        for _ in range(5):
            simulator.step(np.array([0.5, -0.2, -0.4, 0, 0, 0.1, 1], np.float32))
        seen.append((simulator.state(), simulator.fixtures_sha256))
    simulator.close()
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    assert seen[0][1] == seen[1][1]
