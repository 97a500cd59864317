"""What ``--json`` prints of runs: what submits them, what they came to, what is done with them."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from launcher.cancel import Cancelled
from launcher.report.averages import Average


class DryRun(TypedDict):
    """`--dry-run` of a command that submits: nothing was written."""

    run: str
    plan: dict[str, Any]
    scripts: dict[str, str]
    forecast: list[str]


class Ran(TypedDict):
    run: str
    logs: dict[str, str]


class Trained(TypedDict):
    run: str
    policy: str


class Detached(TypedDict):
    run: str
    jobs: dict[str, list[str]]


class Hostfile(TypedDict):
    hostfile: str
    command: list[str]


class Evaluated(TypedDict):
    """A run's table; rates and bounds are fractions of 1, null without finished episodes."""

    name: str
    task: dict[str, Any]
    protocol: dict[str, Any]
    policies: list[dict[str, Any]]
    tasks: list[dict[str, Any]]
    averages: list[Average]
    sentences: list[str]
    files: list[str]


class Swept(TypedDict):
    best: str
    cells: list[dict[str, Any]]
    without: list[str]
    sentences: list[str]
    files: list[str]


class Merged(TypedDict):
    tasks: list[dict[str, Any]]
    averages: list[Average]


class Paired(TypedDict):
    """A run against the first one, on the episodes that both have."""

    first: str
    second: str
    protocol_differences: list[list[Any]]
    other_scene: bool
    sentence: str
    errors_left_out: dict[str, Any]
    errors_as_failures: dict[str, Any]


class Compared(TypedDict):
    comparisons: list[Paired]
    page: str | None


class StageState(TypedDict):
    stage: str
    tasks: int
    done: int
    counts: dict[str, int]
    attempts: int
    why: dict[str, str]
    jobs: list[str]


class RunState(TypedDict):
    """A run; `diff` only where it was asked for."""

    name: str
    run: str
    site: str
    state: str
    note: str
    stages: list[StageState]
    diff: NotRequired[dict[str, Any]]


class Log(TypedDict):
    stage: str
    task: int
    attempt: int
    lines: list[str]


class Fetched(TypedDict):
    destination: str
    copied: list[str]


class Resumed(TypedDict):
    run: str
    state: Literal["done"]


class Resubmitted(TypedDict):
    stage: str
    attempt: int
    indices: list[int]
    ids: list[str] | None


class Waste(TypedDict):
    path: str
    size: int
    why: str


class Cleaned(TypedDict):
    dry_run: bool
    kept: dict[str, str]
    removed: list[Waste]


RESULTS: dict[str, Any] = {
    "demo": Evaluated | DryRun,
    "run": Ran | DryRun,
    "pipeline": Evaluated | Trained | Detached | DryRun,
    "train": Trained | DryRun,
    "evaluate": Evaluated | DryRun,
    "sweep": Swept | DryRun,
    "hostfile": Hostfile,
    "report": Evaluated | Swept | Merged | Compared,
    "runs list": list[RunState],
    "runs show": RunState,
    "runs logs": Log,
    "runs fetch": Fetched,
    "runs resume": Resumed,
    "runs resubmit": list[Resubmitted] | Resumed,
    "runs cancel": Cancelled,
    "runs clean": Cleaned,
}
"""Command → what it prints."""
