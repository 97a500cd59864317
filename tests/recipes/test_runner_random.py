"""Random graphs, with runners killed at random moments: what must hold in all of them."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from launcher.core.dag import Step
from tests.recipes.boxes import Box, bare_python

TOKENS = {"net": 2, "gpu": 1}
# Fails with 9 beside itself, and with 8 before something that it needs; keeps its times.
WORK = """
exec 9>>{name}.lock; flock -n 9 || exit 9
for need in {needs}; do test -f $need.out || exit 8; done
begun=$(date +%s%N); sleep {seconds}; echo $begun $(date +%s%N) >>{name}.times
test {fails} -eq 0 || exit 7
touch {name}.out
"""


def graph(seed: int) -> list[Step]:
    """A dozen steps that need any of those before them; one fails."""
    draw = random.Random(seed)
    names = [f"s{number:02}" for number in range(12)]
    fails = draw.choice(names[4:])
    steps = []
    for number, name in enumerate(names):
        needs = tuple(draw.sample(names[:number], draw.randint(0, min(2, number))))
        seconds = round(draw.uniform(0, 0.4), 2)
        words = {"needs": " ".join(needs), "seconds": seconds, "fails": int(name == fails)}
        resource = draw.choice(["", *TOKENS])
        steps.append(
            Step(
                name,
                script=WORK.format(name=name, **words),
                needs=needs,
                outputs=(f"{name}.out",),
                resources={resource: 1} if resource else {},
                expected_s=seconds,
            )
        )
    return steps


def blocked_by_failure(steps: list[Step]) -> tuple[set[str], set[str]]:
    """Names of the steps that fail and of those that so can never run."""
    failed = {step.name for step in steps if "test 1 -eq 0" in step.script}
    blocked: set[str] = set()
    for step in steps:
        if (failed | blocked).intersection(step.needs):
            blocked.add(step.name)
    return failed, blocked


def times(box: Box, name: str) -> list[tuple[int, int]]:
    """Begin and end, in nanoseconds, of each time that a step came to its end."""
    path = box.work / f"{name}.times"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(line.split()[0]), int(line.split()[1])) for line in lines]


def most_at_once(spans: list[tuple[int, int]]) -> int:
    """How many of these were under way at the same moment, at most."""
    return max((sum(b <= begin < e for b, e in spans) for begin, _ in spans), default=0)


def hold(box: Box, steps: list[Step], restarts: int) -> None:
    """What is true of every finished run."""
    failed, blocked = blocked_by_failure(steps)
    good = {step.name for step in steps} - failed - blocked
    # A runner that is killed between a state and its event leaves a step done that nobody told of.
    assert {*box.names("step_done"), *box.names("step_skip")} == good
    for name in good:
        own = [event["event"] for event in box.events(step=name)]
        finished = min(own.index(e) for e in ("step_done", "step_skip") if e in own)
        assert "step_begin" not in own[finished:], "something finished runs twice"
    assert all(
        event["rc"] == 7 for event in box.events("step_fail") if event["reason"] != "stopped"
    )
    assert {name for name in blocked if times(box, name)} == set()
    for step in steps:
        assert len(times(box, step.name)) <= 1 + restarts
        for need in step.needs:
            if times(box, step.name):
                assert times(box, need)[-1][1] <= times(box, step.name)[0][0]
    if not restarts:
        for token, count in TOKENS.items():
            users = [step.name for step in steps if token in step.resources]
            assert most_at_once([span for name in users for span in times(box, name)]) <= count


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 9))]
)
def test_an_undisturbed_run(tmp_path: Path, seed: int) -> None:
    box, steps = Box(tmp_path, bare_python()), graph(seed)
    box.write(*steps, tokens=TOKENS)
    assert box.call("run").returncode == 1
    hold(box, steps, 0)
    before = {step.name: len(times(box, step.name)) for step in steps}
    assert box.call("run").returncode == 1
    failed, _ = blocked_by_failure(steps)
    assert {n: c for n, c in before.items() if len(times(box, n)) != c} == dict.fromkeys(failed, 1)


@pytest.mark.parametrize(
    "seed", [11, *(pytest.param(n, marks=pytest.mark.slow) for n in range(12, 21))]
)
def test_a_run_whose_runners_are_killed_at_any_moment(tmp_path: Path, seed: int) -> None:
    box, steps, draw = Box(tmp_path, bare_python()), graph(seed), random.Random(seed)
    box.write(*steps, tokens=TOKENS)
    kills = 3 if seed == 11 else 8
    for _ in range(kills):
        pid = box.start()
        time.sleep(draw.uniform(0, 0.6))
        if box.run.owner():
            box.kill(pid)
    box.start()
    assert box.finished() == 1
    hold(box, steps, kills)
