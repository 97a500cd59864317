"""What ``--json`` prints, command by command: the models behind ``docs/reference/json/*.json``.

Where the program has a dataclass for it, that is the model. ``make docs`` writes the schemas;
the tests' ``rdtl()`` holds every answer to them, so an answer that changes changes its schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from launcher.cancel import Cancelled
from launcher.catalogue import Failure
from launcher.core.checks import Area, Finding
from launcher.doctor.examination import Result
from launcher.doctor.fixing import Repair
from launcher.images.store import BuiltImage
from launcher.providers.wanted import Offer
from launcher.report.averages import Average

Fraction = Annotated[float, Field(ge=0, le=1)]
Interval = tuple[Fraction, Fraction] | None
Numbers = dict[str, int]


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


class Hostfile(TypedDict):
    hostfile: str
    command: list[str]


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


class Adopted(TypedDict):
    path: str
    card: dict[str, Any]


class Exported(TypedDict):
    source: str
    folder: str
    bytes: Numbers


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


class RecipeRan(TypedDict):
    recipe: str
    place: str
    run: str
    ended: str | None
    rc: int | None
    checkpoint: str | None
    steps: dict[str, dict[str, Any]]
    error: NotRequired[Problem]


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


class Measured(TypedDict):
    path: str
    sets: dict[str, dict[str, Any]]


class Buffered(TypedDict):
    chunks: int
    samples: int
    bytes: int
    bytes_there: int
    bytes_free: int
    steps: int
    samples_of_an_epoch: int
    episodes: int
    too_short: int
    too_long: int
    processes: int
    made: int
    folder: str


class Collected(TypedDict):
    folder: str
    demos: int
    tasks: list[dict[str, Any]]


class Embedded(TypedDict):
    path: str
    wanted: int
    computed: int
    encoder: dict[str, Any]


class ImageChecked(TypedDict):
    """A built image and what its own tests said."""

    name: str
    kind: Literal["apptainer", "docker"]
    reference: str
    sha256: str
    key: str
    lock_sha256: str
    architecture: str
    size_bytes: int
    built: str
    labels: dict[str, str]
    mtime_ns: int
    tests: list[str]


class UnusedImage(TypedDict):
    what: str
    path: str
    size: int
    days: float


class ImagesCleaned(TypedDict):
    dry_run: bool
    removed: list[UnusedImage]


class Pushed(TypedDict):
    reference: str


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


class StagedAsset(TypedDict):
    uri: str
    path: str
    digest: str
    files: int
    bytes: int
    moved: int


class Staged(TypedDict):
    assets: list[StagedAsset]


class Sent(TypedDict):
    uri: str
    digest: str
    files: int
    bytes: int
    moved: int


class VerifiedAsset(TypedDict):
    path: str
    ok: bool
    files: NotRequired[int]
    error: NotRequired[Problem]


class Verified(TypedDict):
    assets: list[VerifiedAsset]


class KeptAsset(TypedDict):
    digest: str
    uris: list[str]
    size: int
    files: int
    unused_days: float
    runs: list[str]
    whole: bool


class Cached(TypedDict):
    root: str
    assets: list[KeptAsset]


class CacheCleaned(TypedDict):
    removed: list[KeptAsset]
    dry_run: bool


class LoggedIn(TypedDict):
    remote: str
    names: list[str]
    config: str


class StageState(TypedDict):
    stage: str
    tasks: int
    done: int
    counts: Numbers
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
    "demo": Evaluated | DryRun,
    "run": Ran | DryRun,
    "pipeline": Evaluated | Trained | Detached | DryRun,
    "train": Trained | DryRun,
    "evaluate": Evaluated | DryRun,
    "sweep": Swept | DryRun,
    "hostfile": Hostfile,
    "report": Evaluated | Swept | Merged | Compared,
    "doctor": Examined | list[ListedCheck] | Explained,
    "diagnose": Diagnosed,
    "checkpoint inspect": dict[str, Any],
    "checkpoint adopt": Adopted,
    "checkpoint export": Exported,
    "cloud offers": list[Offer],
    "cloud up": Rented | Bare | Costs,
    "cloud status": Rentals,
    "cloud attach": RecipeRan,
    "cloud hosts": Boxes,
    "cloud down": GivenBack,
    "data verify": list[Finding],
    "data stats": Measured,
    "data buffer": Buffered,
    "data collect": Collected,
    "data inspect": dict[str, Any],
    "data embed": Embedded,
    "image build": BuiltImage,
    "image list": list[BuiltImage],
    "image inspect": ImageChecked,
    "image clean": ImagesCleaned,
    "image push": Pushed,
    "image pull": BuiltImage,
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
    "stage in": Staged,
    "stage out": Sent,
    "stage verify": Verified,
    "stage list": Cached,
    "stage clean": CacheCleaned,
    "stage login": LoggedIn,
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


def schemas() -> dict[str, dict[str, Any]]:
    """File name → JSON Schema, one for each command."""
    found = {}
    for command, model in RESULTS.items():
        schema = TypeAdapter(model | Error).json_schema()
        _close(schema)
        title = f"rdtl {command}" if command.startswith("-") else f"rdtl {command} --json"
        found[file_name(command)] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **schema,
            "title": title,
        }
    return found


def file_name(command: str) -> str:
    """Of the schema of a command, below docs/reference/json."""
    return f"{command.removeprefix('--').replace(' ', '-')}.json"


def _close(schema: Any) -> None:
    """Keys that no model names are mistakes: an answer has nothing that is not written down."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
        schema = list(schema.values())
    for inner in schema if isinstance(schema, list) else []:
        _close(inner)
