"""A box on this machine: the shipped runner under an interpreter of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.core import dag_ship
from launcher.core.dag import Graph, Step
from launcher.core.dag_files import BoxRun

LIMIT_S = 60.0
# Holds a lock as long as any process of the step lives: a second one beside it fails with 9.
ALONE = "exec 9>>$RDTL_STEP.lock; flock -n 9 || exit 9; echo >> $RDTL_STEP.begun; "


@contextmanager
def ended_box(folder: Path) -> Iterator[Box]:
    """A box whose runner is stopped afterwards, whatever became of the test."""
    box = Box(folder, bare_python())
    yield box
    if box.run.graph.exists():
        box.call("stop")


def bare_python() -> str:
    """Python 3.10 where this machine has it: the oldest that a box may have."""
    pyenv = sorted(Path.home().glob(".pyenv/versions/3.10.*/bin/python3.10"))
    return str(pyenv[-1]) if pyenv else shutil.which("python3.10") or sys.executable


@dataclass(frozen=True)
class Box:
    """A folder with ``runner.pyz``, the run directory ``run`` and the steps' ``work``."""

    folder: Path
    python: str = sys.executable

    @property
    def run(self) -> BoxRun:
        return BoxRun(self.folder / "run")

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def write(self, *steps: Step, tokens: dict[str, int] | None = None) -> None:
        """Make ``dag.json`` of these steps."""
        if not (self.folder / "runner.pyz").exists():
            dag_ship.write(self.folder / "runner.pyz")
        self.run.root.mkdir(exist_ok=True)
        graph = Graph("test", steps, str(self.work), tokens or {})
        self.run.graph.write_text(json.dumps(graph.to_dict()))

    def argv(self, verb: str, *words: str) -> list[str]:
        """-I: nothing of this repository is found by it."""
        return [
            self.python,
            "-I",
            str(self.folder / "runner.pyz"),
            verb,
            str(self.run.root),
            *words,
        ]

    def call(self, verb: str, *words: str, secrets: str = "") -> subprocess.CompletedProcess[str]:
        """Run a verb to its end."""
        words = (*words, "--secrets", "-") if secrets else words
        return subprocess.run(
            self.argv(verb, *words),
            input=secrets,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            cwd="/",
        )

    def start(self) -> int:
        """Detach a runner; its process id."""
        done = self.call("start")
        assert done.returncode == 0, done.stderr
        pid: int = json.loads(done.stdout)["pid"]
        return pid

    def finished(self) -> int:
        """Wait until the detached runner has ended; its exit code."""
        wait_for(lambda: self.run.owner() is None)
        return int(self.run.rc.read_text())

    def kill(self, pid: int) -> None:
        """End the runner as the kernel does when memory is short."""
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: self.run.owner() is None)

    def kill_when(self, true: Callable[[], Any]) -> None:
        """Start a runner, and kill it as soon as something is so."""
        pid = self.start()
        wait_for(true)
        self.kill(pid)

    def events(self, name: str = "", step: str = "") -> list[dict[str, Any]]:
        """Events of one name, of one step."""
        return [
            event
            for event in self.run.told()
            if name in ("", event["event"]) and step in ("", event.get("step"))
        ]

    def names(self, event: str) -> list[str]:
        """Steps that have such an event, in their order."""
        return [each["step"] for each in self.events(event)]


def wait_for(true: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    """Ask until it is so."""
    deadline = time.monotonic() + limit_s
    while not (found := true()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
    return found


def processes_of(text: str) -> list[int]:
    """Living processes whose command line holds ``text``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def begun(box: Box, name: str) -> int:
    """How often a step has begun."""
    path = box.work / f"{name}.begun"
    return path.read_text().count("\n") if path.exists() else 0
