"""What ``--json`` prints of what is wrong, and of the installation that it is wrong with."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from launcher.catalogue import Failure
from launcher.core.checks import Area
from launcher.doctor.examination import Result
from launcher.doctor.fixing import Repair


class Problem(TypedDict):
    """An error; `exit_status` is that of the command."""

    code: Annotated[str, Field(pattern=r"^RDTL-[A-Z]\d{3}$")]
    what: str
    where: str
    why: str
    fix: str
    exit_status: int


class Error(TypedDict):
    """What any command prints instead when it ends with an error."""

    error: Problem


class Examined(TypedDict):
    """`doctor`: what each check found, and what `--fix` mended before them."""

    checks: list[Result]
    fixed: list[Repair]


class ListedCheck(TypedDict):
    """`doctor --list`; `quick` ones run before every run."""

    name: str
    area: Area
    codes: list[str]
    about: str
    quick: bool


class Explained(Failure):
    """`doctor --explain`: a row of the catalogue of failures."""

    code: str
    severity: Literal["error", "warning", "info"]  # in words, as everywhere outside the files


class Diagnosed(TypedDict):
    found: list[dict[str, Any]]


class Installation(TypedDict):
    """`rdtl --version --json`."""

    rdtl: str
    git: dict[str, str | bool] | None
    python: str
    interpreter: str
    platform: str
    packages: dict[str, str | None]
    sites: dict[str, str]


RESULTS: dict[str, Any] = {
    "--version": Installation,
    "doctor": Examined | list[ListedCheck] | Explained,
    "diagnose": Diagnosed,
}
"""Command → what it prints."""
