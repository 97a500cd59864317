"""The tasks of the installed LIBERO: scenes, words and initial states."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RdtlError, UsageError
from rdt.sim import backend, package, plus, upstream
from rdt.spec import suites


@dataclass(frozen=True)
class TaskInfo:
    """What LIBERO knows of a task. ``init_states`` is (50, n) float64: time, qpos, qvel; (1, n) of
    LIBERO-plus, whose environment is told more by the path ``bddl`` than the file says."""

    suite: str
    name: str
    instruction: str
    bddl: Path
    init_states: NDArray[np.float64]


@functools.cache
def find_task(suite: str, task_id: int) -> TaskInfo:
    """Look a task up in the installed LIBERO.

    Raises UsageError RDTL-U020 for an unknown suite or task, RdtlError RDTL-E028 for one that is
    registered while its files are missing.
    """
    benchmark = _benchmark(suite, task_id)
    task = benchmark.tasks[task_id]
    path = Path(benchmark.get_task_bddl_file_path(task_id))
    try:
        states = np.array(benchmark.get_task_init_states(task_id), np.float64)
        words = upstream.told(path) if suites.words_in_bddl(suite) else task.language
    except FileNotFoundError as error:
        raise RdtlError(
            "RDTL-E028",
            f"LIBERO knows the suite {suite!r} by name only",
            where=f"{error.filename or error}",
            why="the installed package has no scene or no initial states for it",
            fix="choose a suite that is complete: " + ", ".join(suites.KNOWN),
        ) from error
    states.setflags(write=False)  # every caller gets this one
    return TaskInfo(suite, task.name, words, path, states)


def _benchmark(suite: str, task_id: int) -> Any:
    """A suite that has a task of that number."""
    backend.prepare()
    with backend.quiet():
        known = _suites()
        benchmark = known[suite]() if suite in known else None
    if benchmark is None or task_id >= benchmark.n_tasks:
        raise UsageError(
            "RDTL-U020",
            f"LIBERO has no task {task_id} in a suite {suite!r}",
            where="task.suite, task.task_id",
            why=f"known suites are, among others, {', '.join(sorted(known)[:8])}",
            fix="choose libero_object, libero_spatial, libero_goal, libero_10 or libero_90",
        )
    return benchmark


def _suites() -> dict[str, Any]:
    """What makes each suite of the LIBERO that is installed, by name."""
    varied = {name: functools.partial(plus.benchmark, name) for name in suites.PLUS}
    libero = package.find()
    if not libero.ours:
        return {**upstream.suites(libero.root), **varied}
    from libero.libero.benchmark import get_benchmark_dict

    return {**get_benchmark_dict(), **varied}


def task_ids(suite: str) -> range:
    """Numbers of the tasks of a suite; RDTL-U020 for an unknown one."""
    return range(_benchmark(suite, 0).n_tasks)


def instructions(suite: str) -> list[str]:
    """The words of every task of a suite in the installed LIBERO; RDTL-U020 for an unknown one."""
    return [find_task(suite, number).instruction for number in task_ids(suite)]
