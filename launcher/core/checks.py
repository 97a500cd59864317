"""Findings and the registry of checks.

A check looks at one thing that can go silently wrong and returns findings. It
lives beside what it checks and is registered by dotted name
(:mod:`launcher.registry`), so that listing the checks imports nothing heavy.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from launcher.core.errors import RdtlError

Severity = Literal["error", "warning", "info", "ok"]
Area = Literal["machine", "site", "config", "data", "checkpoint", "image", "secrets", "network"]


@dataclass(frozen=True)
class Finding:
    """A check's result: stable code, severity, evidence, reason and remedy."""

    code: str
    severity: Severity
    what: str
    where: str = ""
    why: str = ""
    fix: str = ""

    @classmethod
    def of(cls, error: RdtlError) -> Finding:
        """What an error says."""
        said = error.problem
        return cls(said.code, "error", said.what, said.where, said.why, said.fix)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


class NothingToLookAtError(Exception):
    """A check has nothing to look at; its text says why. No failure of anything."""


@dataclass(frozen=True)
class CheckSpec:
    """A registered check.

    Those of the areas machine and site take (site, runs directory), all others the
    :class:`~launcher.doctor.subject.Subject`. ``needs`` names what of the subject there must
    be. ``heavy`` ones return what is to be asked of ``jobs.check`` in the jobs' environment,
    where h5py, torch and the simulator are. ``quick`` ones also run before every submission.
    """

    name: str
    target: str
    codes: tuple[str, ...]
    about: str
    area: Area
    needs: str = ""
    heavy: bool = False
    quick: bool = False

    def load(self) -> Callable[..., list[Any]]:
        """Import and return the check's function."""
        module, _, attribute = self.target.rpartition(".")
        function: Callable[..., list[Any]] = getattr(importlib.import_module(module), attribute)
        return function

    def broke(self, said: str) -> Finding:
        """That the check itself failed."""
        fix = "mend what it says; if it is a bug of RDT Launcher, please report it"
        where = " ".join(said.split())[:400]
        return self.undecided("nobody knows, the check itself failed", where, fix)

    def undecided(self, what: str, where: str, fix: str) -> Finding:
        """That nobody knows what the check looks for."""
        about, why = f"{self.about}: {what}", "so what it looks for may be wrong and is not told"
        return Finding(self.codes[0], "warning", about, where, why, fix)
