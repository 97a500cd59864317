"""``python -m jobs.collect_set REQUEST``: the work of ``rdtl data collect``.

REQUEST is a JSON object; each line of stdout is one, too: ``{"plan": …}``, ``{"made": …}``
for every demonstration, ``{"result": …}`` or ``{"error": …}``.

Each demonstration is published whole under ``SUITE/.parts`` and depends on the settings
alone, so a collection that was killed goes on with the first one that is missing and ends
in the same files, whatever the number of processes. A task that is complete becomes one
file, then its parts go.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from jobs.answer import answer, say
from launcher.core import files
from launcher.core.errors import RdtlError
from launcher.core.job import begin_worker, die_with_parent
from rdt.sim.collecting import Collector
from rdt.sim.collection import Target, alone, demo_name, folder_of, require_same, targets_of

FAILURES = ("RDTL-D040", "RDTL-D041")
"""What one task may fail with while the others go on."""


def collect(request: dict[str, Any]) -> dict[str, Any]:
    """Collect what is missing; what is complete and which tasks the expert could not do."""
    folder, targets = folder_of(request), targets_of(request)
    with alone(folder):
        require_same(folder, request)
        for target in targets:
            target.look()
        demos = request["collect"]["demos"]
        wanted, left = len(targets) * demos, sum(len(target.missing) for target in targets)
        say({"plan": {"folder": str(folder), "demos": wanted, "there": wanted - left}})
        failed = _make(targets, request)
        tasks = [target.describe(failed.get(target.name)) for target in targets]
        return {"folder": str(folder), "demos": demos, "tasks": tasks}


def _make(targets: Sequence[Target], request: dict[str, Any]) -> dict[str, RdtlError]:
    """Make what is missing, task after task; errors by name of the tasks that failed."""
    failed: dict[str, RdtlError] = {}
    pool = ProcessPoolExecutor(request["processes"], get_context("spawn"), _start_worker)
    try:
        places = {
            pool.submit(_work, target.task, request, number, target.parts[number]): (target, number)
            for target in targets
            for number in sorted(target.missing)
        }
        for future in as_completed(places):
            target, number = places[future]
            if future.cancelled():
                continue
            try:
                say({"made": {"task": target.name, "line": future.result()}})
            except RdtlError as error:
                if error.problem.code not in FAILURES:
                    raise
                failed.setdefault(target.name, error)
                _cancel(places, target)
                continue
            target.made(number)
    except BrokenProcessPool:
        raise _died(request["processes"]) from None
    finally:
        pool.shutdown(cancel_futures=True)
    return failed


def _cancel(places: dict[Future[str], tuple[Target, int]], target: Target) -> None:
    for future, (of, _) in places.items():
        if of is target:
            future.cancel()


def _died(processes: int) -> RdtlError:
    return RdtlError(
        "RDTL-D073",
        "a process that collects was killed",
        where=f"one of {processes}",
        why="memory may have run out: each holds a blind and a seeing simulator, up to 3.4 GB",
        fix="run the same command again, with fewer --jobs; what is finished is kept",
    )


def _start_worker() -> None:
    """A process that makes demonstrations: it ends with its parent and leaves stdout to it."""
    begin_worker()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


_open: dict[int, Collector] = {}
"""The simulators of this process, by task; of one task at a time."""


def _work(task: dict[str, Any], request: dict[str, Any], number: int, part: Path) -> str:
    """Publish one demonstration; returns a line about it."""
    if task["task_id"] not in _open:
        while _open:
            _open.popitem()[1].close()
        _open[task["task_id"]] = Collector(task, request["collect"], request["seed"])
    with files.whole_file(part) as temporary:
        return _open[task["task_id"]].collect(number, temporary, demo_name(number))


def main(argv: list[str]) -> int:
    """Answer one request."""
    die_with_parent()
    return answer(lambda: collect(json.loads(argv[0])), "demonstrations were being collected")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
