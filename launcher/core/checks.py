"""Findings and the registry of checks.

A check looks at one thing that can go silently wrong and returns findings. It
lives beside what it checks and is registered here by dotted name, so that
listing the checks imports nothing heavy. Checks that need h5py, torch or the
simulator run as ``python -m jobs.check NAME`` in the environment of the jobs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "info", "ok"]


@dataclass(frozen=True)
class Finding:
    """A check's result: stable code, severity, evidence, reason and remedy."""

    code: str
    severity: Severity
    what: str
    where: str = ""
    why: str = ""
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class CheckSpec:
    """A registered check. ``heavy`` ones run in the jobs' environment."""

    name: str
    target: str
    codes: tuple[str, ...]
    about: str
    heavy: bool = False

    def load(self) -> Callable[..., list[Finding]]:
        """Import and return the check's function."""
        module, _, attribute = self.target.rpartition(".")
        function: Callable[..., list[Finding]] = getattr(importlib.import_module(module), attribute)
        return function
