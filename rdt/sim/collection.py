"""The folder of a collection: which demonstrations are there, whole and of these settings.

A request is a JSON object: ``out`` (folder), ``tasks`` (numbers, none: all), ``task`` and
``collect`` (sections of a configuration), ``seed``.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError
from rdt.data import hdf5
from rdt.data.merging import merge
from rdt.sim import demo_file
from rdt.sim.collecting import settings
from rdt.sim.tasks import find_task, task_ids


@dataclass
class Target:
    """One task of the collection; ``missing`` are the numbers still to be made."""

    task: dict[str, Any]
    name: str
    file: Path
    settings: str
    parts: list[Path]
    missing: set[int] = field(default_factory=set)

    def look(self) -> None:
        """Find out what is missing; RdtlError RDTL-D042 for a file that is not ours or not whole.

        A task that was killed after its last demonstration is completed.
        """
        if self.file.exists():
            demo_file.require_belongs(self.file, "demo_0", self.settings)
            self._remove_parts()
            return
        there = {number for number, part in enumerate(self.parts) if part.exists()}
        for number in there:
            demo_file.require_belongs(self.parts[number], demo_name(number), self.settings)
        self.missing = set(range(len(self.parts))) - there
        if not self.missing:
            self._publish()

    def made(self, number: int) -> None:
        """A demonstration is there; the last one completes the task's file."""
        self.missing.discard(number)
        if not self.missing:
            self._publish()

    def _publish(self) -> None:
        merge(self.file, self.parts, lambda done: None)
        self._remove_parts()

    def _remove_parts(self) -> None:
        """With what killed processes left unfinished."""
        folder = self.parts[0].parent
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # other tasks have parts, or there never were any
            folder.parent.rmdir()

    def describe(self, error: RdtlError | None) -> dict[str, Any]:
        """What is there, for the answer; ``file`` and ``steps`` None while it is incomplete."""
        steps = None
        if self.file.exists():
            with hdf5.open_file(self.file) as file:
                steps = int(file["data"].attrs["total"])
        return {
            "task": self.name,
            "task_id": self.task["task_id"],
            "file": str(self.file) if steps else None,
            "demos": len(self.parts) - len(self.missing),
            "steps": steps,
            "error": error.to_dict() if error else None,
        }


def demo_name(number: int) -> str:
    """The group of a demonstration in its part and in the task's file."""
    return f"demo_{number}"


def folder_of(request: dict[str, Any]) -> Path:
    """Where the files of the suite go."""
    return Path(request["out"]) / str(request["task"]["suite"])


def targets_of(request: dict[str, Any]) -> list[Target]:
    """The tasks asked for; UsageError RDTL-U020 for one that there is not."""
    return [_target(request, number) for number in request["tasks"] or _all(request)]


def _all(request: dict[str, Any]) -> range:
    return task_ids(request["task"]["suite"])


def _target(request: dict[str, Any], number: int) -> Target:
    task = request["task"] | {"task_id": number}
    name = find_task(task["suite"], number).name
    folder = folder_of(request)
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
def alone(folder: Path) -> Iterator[None]:
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


def require_same(folder: Path, request: dict[str, Any]) -> None:
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
