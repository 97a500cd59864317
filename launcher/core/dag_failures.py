"""Failures of steps that no signature names: what they are called, why, and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from launcher.core import errors
from launcher.core.signatures import Failure

STOPPED = Failure("", "stopped", "somebody ended the runner", "start it again", at_once=True)
UNKNOWN = ("RDTL-B053", "RDTL-B054", "RDTL-B055", "RDTL-B058")
"""Codes without a known cause: another try may bring something else."""


def said(lines: Iterable[str]) -> Failure | None:
    """What a program of ours says at the end of its log, which is better than any guess.

    Trying again may help it (a damaged download), where the step allows that.
    """
    problems = [problem for _, problem in errors.said(list(lines))]
    if not problems:
        return None
    problem = problems[-1]
    told = ": ".join(filter(None, (problem.what, problem.where)))
    return Failure(problem.code, told, problem.why, problem.fix, remedy="retry")


def missing(kind: str, names: Iterable[object], error: OSError | None = None) -> Failure:
    """An input or output is not there."""
    return Failure(
        "RDTL-B054",
        f"{kind} {', '.join(map(str, names))}: {error.strerror if error else 'not there'}",
        "the step that makes it did not, or the path is another one",
        "look at the log of the step that makes it, and at the recipe's paths",
    )


def unproven(step: str, rc: int, last: str) -> Failure:
    """A proof failed."""
    return Failure(
        "RDTL-B055",
        f"its proof failed with {rc}: {last}",
        "the program ended well, but what it made is not what the recipe expects",
        f"read steps/{step}/check.log",
    )


def too_long(allowed_s: float, what: str) -> Failure:
    """A deadline passed: hours of a training are not spent again, unless the step allows it."""
    return Failure(
        "RDTL-B057",
        f"{what} took longer than {allowed_s:g} s",
        "it hangs, or the machine or its network is slower than the recipe expects",
        "look at the end of its log; give the step more time in the recipe",
        remedy="retry",
        at_once=True,
    )


def unknown(rc: int, last: str) -> Failure:
    """An exit code is all there is."""
    signal = f" (signal {rc - 128})" if rc > 128 else ""
    return Failure(
        "RDTL-B058",
        f"it ended with {rc}{signal}: {last}",
        "no known failure; the end of its log is all there is",
        "read its log; `rdtl diagnose` knows more signatures than the step was given",
    )


def disk_full(said: str) -> Failure:
    """No room."""
    return Failure(
        "RDTL-G009",
        f"the disk is full: {said}",
        "the box was rented with too little disk, or something fills it (checkpoints, caches)",
        "free some space and run again: what is finished stays finished",
    )


def of_system(error: OSError) -> Failure:
    """The system refused something that the runner itself needs for a step."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(str(error))
    return Failure(
        "RDTL-B058",
        f"the system refused it: {error}",
        "the run directory or the step's working directory cannot be used",
        "look at the path and its permissions (ls -ld), then run again",
    )


def broken(error: Exception) -> Failure:
    """A fault of the runner."""
    return Failure(
        "RDTL-B058",
        f"the runner failed: {type(error).__name__}: {error}",
        "a fault of ours, or of the machine",
        "run again; if it stays, report it with events.jsonl",
    )
