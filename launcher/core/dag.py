"""A recipe's graph: pure data that the runner on a box executes.

``dag.json`` is the JSON form of a :class:`Graph`; everything is resolved in it but the
values of secrets, which it only names. Paths are relative to the graph's working
directory. Standard library only, Python 3.10: a rented box has its own ``python3``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from launcher.core.errors import UsageError

VERSION = 1
Command = tuple[str, ...] | str
"""An argv, or the text of a script for ``bash -euo pipefail``."""


@dataclass(frozen=True)
class Limit:
    """A number in a line, taken from the pattern's ``group``, that must not leave its range.

    What is not finite has left it. ``from_step`` looks at the pattern's group ``step``.
    """

    group: str
    above: float | None = None
    below: float | None = None
    from_step: int | None = None


@dataclass(frozen=True)
class Signature:
    """A line of a log that says what is wrong: an error ends the step, a warning only tells.

    ``remedy`` is applied only where the step allows it. ``only_after_failure`` is for lines
    that also stand in healthy logs: it explains a step that failed and ends none.
    """

    code: str
    pattern: str
    cause: str
    fix: str
    severity: str = "error"
    remedy: str | None = None
    limit: Limit | None = None
    ignore_case: bool = False
    only_after_failure: bool = False


@dataclass(frozen=True)
class Marker:
    """A line of a healthy log; its named groups become values (step, loss, gpu, …).

    ``order``: those with smaller numbers come first. ``expect``: a group's value, or the
    two ends of its range. What is not so is told (warning) or ends the step (error).
    """

    name: str
    pattern: str
    order: int | None = None
    expect: Mapping[str, Any] = field(default_factory=dict)
    severity: str = "error"


@dataclass(frozen=True)
class Verify:
    """Proofs that a step's outputs are good: ``cheap`` before every skip, ``deep`` after a run."""

    cheap: Command | None = None
    deep: Command | None = None
    timeout_s: float = 600.0


@dataclass(frozen=True)
class Step:
    """One command with what it needs, makes, may use and how it is watched.

    Either ``argv`` or ``script``. ``secrets`` are names that become environment variables.
    ``inputs`` are files whose bytes count for the fingerprint, ``outputs`` exist afterwards.
    ``retries`` are further tries after a failure whose cause is unknown or has a remedy.
    ``expected_s`` orders ready steps (longest way to the end first). ``start_s``: the first
    marker with a group ``step`` comes within it; ``stall_s``: so does each next one, or,
    without such markers, any output. ``always``: a success is never skipped.
    ``after_failure``: runs as soon as its needs ended, however they did.
    """

    name: str
    argv: tuple[str, ...] = ()
    script: str = ""
    needs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    verify: Verify = Verify()
    timeout_s: float | None = None
    retries: int = 0
    retry_wait_s: float = 5.0
    resources: Mapping[str, int] = field(default_factory=dict)
    signatures: tuple[Signature, ...] = ()
    markers: tuple[Marker, ...] = ()
    start_s: float | None = None
    stall_s: float | None = None
    remedies: tuple[str, ...] = ()
    always: bool = False
    after_failure: bool = False
    expected_s: float = 1.0
    about: str = ""

    @property
    def command(self) -> Command:
        """What it runs."""
        return self.argv or self.script


@dataclass(frozen=True)
class Graph:
    """All steps of a recipe; ``tokens`` says how much of each resource there is."""

    name: str
    steps: tuple[Step, ...]
    working_directory: str
    tokens: Mapping[str, int] = field(default_factory=dict)
    version: int = VERSION

    def step(self, name: str) -> Step:
        """The step of that name (KeyError)."""
        return {step.name: step for step in self.steps}[name]

    def order(self) -> list[Step]:
        """The steps, each after what it needs; UsageError RDTL-B051 for a cycle."""
        waiting = {step.name: step for step in self.steps}
        ordered: list[Step] = []
        while waiting:
            ready = [s for s in waiting.values() if not any(need in waiting for need in s.needs)]
            if not ready:
                raise cannot_run(self.name, f"steps wait for each other: {', '.join(waiting)}")
            for step in ready:
                ordered.append(waiting.pop(step.name))
        return ordered

    def ways(self) -> dict[str, float]:
        """Expected seconds from the beginning of each step to the end of the graph."""
        ways: dict[str, float] = {}
        for step in reversed(self.order()):
            after = [ways[other.name] for other in self.steps if step.name in other.needs]
            ways[step.name] = step.expected_s + max(after, default=0.0)
        return ways

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def launch(command: Command) -> list[str]:
    """The argv that runs a command; a script stops at the first failing line and pipe."""
    if isinstance(command, str):
        # Below sshd bash reads a start-up file, in which -u finds $PS1 unset, and says so.
        return ["bash", "--norc", "-euo", "pipefail", "-c", command]
    return list(command)


def fingerprint(step: Step, upstream: Iterable[str], root: Path) -> str:
    """What a step's success depends on: its command, what it needs, the bytes of its inputs.

    Names of secrets count, values do not. Raises FileNotFoundError for a missing input.
    """
    said = [step.argv, step.script, dict(step.env), step.secrets, str(root), sorted(upstream)]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for path in (found for name in step.inputs for found in _files(root / name)):
        digest.update(f"\0{path}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(found for found in path.rglob("*") if found.is_file())
    return [path]


def cannot_run(where: str, why: str) -> UsageError:
    """RDTL-B051: a graph that could never run to its end."""
    return UsageError(
        "RDTL-B051",
        "this graph of steps cannot run",
        where=where,
        why=why,
        fix="change the recipe; `rdtl recipe lint` shows everything that is wrong with it",
    )
