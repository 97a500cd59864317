"""``python -m jobs.collect_set REQUEST``: the work of ``rdtl data collect``.

REQUEST is a JSON object; each line of stdout is one, too: ``{"plan": …}``, ``{"made": …}``
for every demonstration, ``{"result": …}`` or ``{"error": …}``.

Each demonstration is published whole under ``SUITE/.parts`` and depends on the settings
alone, so a collection that was killed goes on with the first one that is missing and ends
in the same files, whatever the number of processes. A task that is complete becomes one
file, then its parts go.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError, full_disk
from launcher.core.job import die_with_parent
from rdt.data import hdf5
from rdt.data.merging import merge
from rdt.sim import demo_file
from rdt.sim.collecting import Collector, settings
from rdt.sim.libero import find_task, task_ids

FAILURES = ("RDTL-D040", "RDTL-D041")
"""What one task may fail with while the others go on."""


@dataclass
class Target:
    """One task of the collection."""

    task: dict[str, Any]
    name: str
    file: Path
    settings: str
    parts: list[Path]
    missing: set[int] = field(default_factory=set)


def collect(request: dict[str, Any]) -> dict[str, Any]:
    """Collect what is missing; what is complete and which tasks the expert could not do."""
    suite = request["task"]["suite"]
    folder = Path(request["out"]) / suite
    ids = request["tasks"] or list(task_ids(suite))
    targets = [_target(folder, request, number) for number in ids]
    with _alone(folder):
        _require_same(folder, request)
        for target in targets:
            target.missing = _missing(target)
        wanted = len(targets) * request["collect"]["demos"]
        left = sum(len(target.missing) for target in targets)
        say({"plan": {"folder": str(folder), "demos": wanted, "there": wanted - left}})
        failed = _make(targets, request)
        return _result(folder, targets, failed)


def _target(folder: Path, request: dict[str, Any], number: int) -> Target:
    task = request["task"] | {"task_id": number}
    name = find_task(task["suite"], number).name
    parts = folder / ".parts" / name
    return Target(
        task,
        name,
        folder / f"{name}_demo.hdf5",
        settings(task, request["collect"], request["seed"]),
        # Not .hdf5: who reads the folder meanwhile must not take them for a task's file.
        [parts / f"demo_{d:03d}.part" for d in range(request["collect"]["demos"])],
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; RefusedError RDTL-D071 when another one does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".collecting").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(
                "RDTL-D071",
                "demonstrations are being collected into this folder already",
                where=str(folder),
                why="two collections would make each demonstration twice",
                fix="wait for the other one, or end it: the same command then goes on",
            ) from None
        yield


def _require_same(folder: Path, request: dict[str, Any]) -> None:
    """RefusedError RDTL-D070 when the folder was begun with other settings."""
    path = folder / "collection.json"
    common = json.loads(settings(request["task"], request["collect"], request["seed"]))
    del common["task"]["task_id"]
    common["demos"] = request["collect"]["demos"]
    if files.publish_once(path, common):
        return
    found = files.read_json(path)
    differing = _differences(found, common)
    if differing:
        raise RefusedError(
            "RDTL-D070",
            "this folder holds demonstrations of other settings",
            where=f"{path}: {'; '.join(differing)}",
            why="mixing them would make a data set that no command describes",
            fix="take the same settings, or another folder",
        )


def _differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    if not isinstance(found, dict) or not isinstance(wanted, dict):
        return [] if found == wanted else [f"{name} is {found} there and {wanted} here"]
    return [
        line
        for key in sorted(found.keys() | wanted.keys())
        for line in _differences(found.get(key), wanted.get(key), f"{name}.{key}".lstrip("."))
    ]


def _missing(target: Target) -> set[int]:
    """Numbers of the demonstrations that are still to be made."""
    if target.file.exists():
        demo_file.require_belongs(target.file, "demo_0", target.settings)
        _remove_parts(target)
        return set()
    there = {number for number, part in enumerate(target.parts) if part.exists()}
    for number in there:
        demo_file.require_belongs(target.parts[number], _name(number), target.settings)
    missing = set(range(len(target.parts))) - there
    if not missing:
        _publish(target)
    return missing


def _name(number: int) -> str:
    return f"demo_{number}"


def _publish(target: Target) -> None:
    merge(target.file, target.parts, lambda done: None)
    _remove_parts(target)


def _remove_parts(target: Target) -> None:
    """With what killed processes left unfinished."""
    folder = target.parts[0].parent
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # other tasks have parts, or there never were any
        folder.parent.rmdir()


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
            target.missing.discard(number)
            if not target.missing:
                _publish(target)
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
        why="memory may have run out: each holds a blind and a seeing simulator, up to 2.7 GB",
        fix="run the same command again, with fewer --jobs; what is finished is kept",
    )


def _start_worker() -> None:
    """A process that makes demonstrations: it ends with its parent and leaves stdout to it."""
    die_with_parent()
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
        return _open[task["task_id"]].collect(number, temporary, _name(number))


def _result(
    folder: Path, targets: Sequence[Target], failed: dict[str, RdtlError]
) -> dict[str, Any]:
    tasks = []
    for target in targets:
        steps = None
        if target.file.exists():
            with hdf5.open_file(target.file) as file:
                steps = int(file["data"].attrs["total"])
        tasks.append(
            {
                "task": target.name,
                "task_id": target.task["task_id"],
                "file": str(target.file) if steps else None,
                "demos": len(target.parts) - len(target.missing),
                "steps": steps,
                "error": failed[target.name].to_dict() if target.name in failed else None,
            }
        )
    return {"folder": str(folder), "demos": len(targets[0].parts), "tasks": tasks}


def say(message: dict[str, Any]) -> None:
    """One line of JSON."""
    print(json.dumps(message), flush=True)


def main(argv: list[str]) -> int:
    """Answer one request."""
    die_with_parent()
    try:
        try:
            say({"result": collect(json.loads(argv[0]))})
        except OSError as error:
            raise full_disk(error, "demonstrations were being written") or error from error
    except RdtlError as error:
        say({"error": error.to_dict()})
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
