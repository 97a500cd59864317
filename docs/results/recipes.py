"""What ``--json`` prints of recipes and of the machines that are rented for them."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict

from docs.results.problems import Problem
from launcher.core.checks import Finding
from launcher.providers.wanted import Offer


class RecipeName(TypedDict):
    name: str
    about: str
    profiles: list[str]


class Schedule(TypedDict):
    graph: dict[str, Any]
    seconds: float
    critical: list[str]


class StepPlan(TypedDict):
    step: str
    would: str
    why: str


class RecipePlan(TypedDict):
    """`flaws` are what is known to be wrong with the profile's result."""

    steps: list[StepPlan]
    flaws: list[Finding]


class RecipeRan(TypedDict):
    recipe: str
    place: str
    run: str
    ended: str | None
    rc: int | None
    checkpoint: str | None
    steps: dict[str, dict[str, Any]]
    error: NotRequired[Problem]


class RecipeStatus(TypedDict):
    name: str
    alive: bool
    pid: int | None
    rc: int | None
    seq: int
    steps: dict[str, dict[str, Any]]
    run: str
    place: str


class Stopped(TypedDict):
    state: str


class StepProof(TypedDict):
    step: str
    good: bool
    why: str


class Costs(TypedDict):
    """`cloud up --dry-run`."""

    offers: list[Offer]
    search: dict[str, Any]
    body: dict[str, Any]
    costs: float | None


class Bare(TypedDict):
    """A machine without a recipe."""

    rental: str
    box: int
    ssh: str


class Rented(TypedDict):
    rental: str
    proven: bool
    recipe: RecipeRan


class Rentals(TypedDict):
    rentals: list[dict[str, Any]]
    unknown: list[dict[str, Any]]
    findings: list[Finding]


class Boxes(TypedDict):
    site: str
    hosts: list[str]
    ssh: str


class GivenBack(TypedDict):
    rental: str
    spent: float


RESULTS: dict[str, Any] = {
    "recipe list": list[RecipeName],
    "recipe lint": list[Finding],
    "recipe graph": Schedule,
    "recipe plan": RecipePlan,
    "recipe run": RecipeRan,
    "recipe attach": RecipeRan,
    "recipe status": RecipeStatus,
    "recipe stop": Stopped,
    "recipe verify": list[StepProof],
    "recipe fetch": list[str],
    "cloud offers": list[Offer],
    "cloud up": Rented | Bare | Costs,
    "cloud status": Rentals,
    "cloud attach": RecipeRan,
    "cloud hosts": Boxes,
    "cloud down": GivenBack,
}
"""Command → what it prints."""
