"""Tokens go to the longest way, also to one that needs them only in a moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.core import dag_schedule
from launcher.core.dag import Graph, Step
from launcher.dag import load, resolve, schedule
from tests.recipes.boxes import Box, bare_python


def steps(prepare_s: float, small_s: float, really_s: float | None = None) -> tuple[Step, ...]:
    """``main`` decides the whole and needs ``prepare`` first; ``small`` wants the same token."""
    really = prepare_s if really_s is None else really_s
    return (
        Step("prepare", argv=("sleep", str(really)), expected_s=prepare_s),
        Step("small", argv=("true",), resources={"net": 1}, expected_s=small_s),
        Step("main", argv=("true",), needs=("prepare",), resources={"net": 1}, expected_s=1),
        Step("rest", argv=("true",), needs=("main",), expected_s=100),
    )


@pytest.mark.parametrize(
    ("parts", "order"),
    [
        (steps(0.5, 5), ["main", "small"]),  # to wait for it costs less
        (steps(0.5, 0.6), ["small", "main"]),  # it would hardly be in the way
        (steps(0.1, 1, really_s=2), ["small", "main"]),  # what hangs is not waited for
    ],
)
def test_a_step_leaves_its_token_to_a_longer_way_for_a_moment_only(
    tmp_path: Path, parts: tuple[Step, ...], order: list[str]
) -> None:
    box = Box(tmp_path, bare_python())
    box.write(*parts, tokens={"net": 1})
    assert box.call("run").returncode == 0
    assert [name for name in box.names("step_begin") if name in order] == order


def test_with_tokens_for_both_nobody_waits(tmp_path: Path) -> None:
    box = Box(tmp_path, bare_python())
    box.write(*steps(0.5, 5), tokens={"net": 2})
    box.call("run")
    assert set(box.names("step_begin")[:2]) == {"prepare", "small"}


def test_what_is_late_will_be_as_late_again() -> None:
    parts = steps(10, 5)
    for elapsed, left in ((0.0, 10.0), (8.0, 2.0), (13.0, 3.0)):
        ends = dag_schedule.remaining(parts, {"prepare": elapsed})
        assert ends["prepare"] == left and ends["main"] == left + 1


@pytest.mark.parametrize("name", ["openpi/waypoint-ae", "openpi/waypoint-vlm"])
def test_the_shipped_recipes_come_within_a_twentieth_of_the_least(name: str) -> None:
    """Up to the training, whose length hides everything else."""
    graph = resolve.resolve(load.load(name), "/run")
    last = next(step for step in graph.steps if step.name == "train")
    kept = tuple(step for step in graph.order() if step.name != "upload" and step != last)
    short = Graph(graph.name, kept, graph.working_directory, graph.tokens)
    work = [
        sum(step.expected_s * step.resources.get(token, 0) for step in kept) / count
        for token, count in graph.tokens.items()
    ]
    assert schedule.plan(short).length <= 1.05 * max(*short.ways().values(), *work)
