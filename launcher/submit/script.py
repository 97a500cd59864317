"""The sbatch script of one part: text that a person can read, and that no name can break.

Pure: the same request gives the same text. Secrets never stand in it; the
stage's command does not either (the node task reads it from the plan).
"""

from __future__ import annotations

import shlex
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from launcher.core.errors import UsageError

SIGNAL = "USR2@90"
"""Sent to every task 90 s before the end of its time (and at a preemption, where the cluster
is set up so): the task saves its state and asks to be started again."""


@dataclass(frozen=True)
class Request:
    """Everything that stands in the script of one part. Memory in MB, time in minutes."""

    title: str
    job_name: str
    folder: Path
    """Where the scheduler's own logs and the list of tasks lie."""
    code: Path
    python: str
    nodes: int
    cpus: int
    memory_mb: int
    minutes: int
    gpus_per_node: int = 0
    gpu_type: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    array: int = 0
    """Number of array tasks; 0: no array."""
    at_once: int | None = None
    after: tuple[str, ...] = field(default=())
    """Job ids to wait for."""
    after_any: bool = False
    """Wait for their end, however they end."""


def render(request: Request) -> str:
    """The whole script. UsageError RDTL-U024 when sbatch cannot carry a path."""
    sections = [
        _section("what this is", [("job-name", request.job_name)]),
        _section("where it may run", _place(request)),
        _section(f"what {'each array task' if request.array else 'it'} gets", _resources(request)),
        _section(
            "which lines of tasks.json, from 0 on; after %, how many run at once", _array(request)
        ),
        _section("what must end first; a job that can never start is removed", _order(request)),
        _section("warned before its time is over; started again after a preemption", _ends()),
        _section("Slurm's own log; what the stage prints is in the run's logs/", _logs(request)),
    ]
    head = f"#!/bin/bash\n# {printable(request.title)}\n# Written by rdtl for one sbatch.\n"
    return head + "".join(sections) + _commands(request)


def printable(text: str) -> str:
    """``text`` on one line of a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def directive(name: str, value: str) -> str:
    """One #SBATCH line; ``value`` in quotes where it needs them, as sbatch reads them.

    sbatch reads a line as a shell would, but has no escape for a line break.
    """
    if any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in value):
        raise UsageError(
            "RDTL-U024",
            f"a line break or control character cannot stand in --{name}",
            where=repr(value),
            why="sbatch reads its options line by line",
            fix="choose another --runs-dir or --name",
        )
    return f"#SBATCH --{name}" + (f"={shlex.quote(value)}" if value else "")


def _section(title: str, options: list[tuple[str, str]]) -> str:
    if not options:
        return ""
    return "\n".join(["", f"# {title}", *(directive(*option) for option in options), ""])


def _place(request: Request) -> list[tuple[str, str]]:
    named = ("partition", request.partition), ("account", request.account), ("qos", request.qos)
    return [(name, value) for name, value in named if value]


def _resources(request: Request) -> list[tuple[str, str]]:
    kind = f"{request.gpu_type}:" if request.gpu_type else ""
    count = f"{kind}{request.gpus_per_node}"
    gpus = [("gpus-per-node", count)] if request.gpus_per_node else []
    return [
        ("nodes", str(request.nodes)),
        ("ntasks-per-node", "1"),
        ("cpus-per-task", str(request.cpus)),
        ("mem", f"{request.memory_mb}M"),
        *gpus,
        ("time", str(request.minutes)),
    ]


def _array(request: Request) -> list[tuple[str, str]]:
    if not request.array:
        return []
    limit = f"%{request.at_once}" if request.at_once else ""
    return [("array", f"0-{request.array - 1}{limit}")]


def _order(request: Request) -> list[tuple[str, str]]:
    if not request.after:
        return []
    kind = "afterany" if request.after_any else "afterok"
    waits = ("dependency", f"{kind}:{':'.join(request.after)}")
    return [waits, ("kill-on-invalid-dep", "yes")]


def _ends() -> list[tuple[str, str]]:
    return [("signal", SIGNAL), ("requeue", ""), ("open-mode", "append")]


def _logs(request: Request) -> list[tuple[str, str]]:
    return [("output", f"{_pattern(request.folder)}/{_job(request)}.log")]


def _pattern(path: Path) -> str:
    """A path in a file name pattern: Slurm would replace %j, %a, …

    It takes every backslash away, and has no way to write one: UsageError RDTL-U024.
    """
    if "\\" in str(path):
        raise UsageError(
            "RDTL-U024",
            "Slurm cannot write logs below a directory with a backslash in its name",
            where=str(path),
            fix="choose another --runs-dir or --name",
        )
    return str(path).replace("%", "%%")


def _job(request: Request) -> str:
    return "%A_%a" if request.array else "%j"


def _commands(request: Request) -> str:
    log = f"{_pattern(request.folder)}/{_job(request)}.n%t.log"
    # --kill-on-bad-exit: a node that fails ends the others, which would wait for it.
    # --cpus-per-task: since 22.05 srun does not take it from sbatch.
    srun = f"srun --unbuffered --kill-on-bad-exit=1 --cpus-per-task={request.cpus}"
    task = [request.python, "-u", "-P", "-m", "jobs.slurm_task", str(request.folder)]
    code = shlex.quote(str(request.code))
    return f"""
# The run's own copy of the code is the only source of jobs and launcher.
export PYTHONPATH={code} PYTHONSAFEPATH=1 SUBMITIT_EXECUTOR=slurm

# One process a node. It starts the stage's command, in its container if it has one.
{srun} \\
  --output {shlex.quote(log)} \\
  {shlex.join(task)}
"""
