"""What a recipe is, as people write it: ``configs/recipes/**/NAME.yaml``."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator, model_validator

from launcher.schema_base import Positive, Section

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(value: Any) -> float:
    """``90``, ``90s``, ``10m`` or ``1h30m`` in seconds; ValueError for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", str(value))
    if parts and "".join(number + unit for number, unit in parts) == str(value):
        return sum(float(number) * UNITS[unit] for number, unit in parts)
    try:
        return float(str(value))
    except ValueError:
        raise ValueError("a length of time is written as 90s, 10m or 1h30m") from None


def _texts(value: Any) -> Any:
    """Numbers of YAML as the text that a command or a variable needs."""
    if isinstance(value, dict):
        return {key: _texts(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_texts(inner) for inner in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


Seconds = Annotated[float, PlainValidator(seconds)]
Text = Annotated[str, BeforeValidator(_texts)]
Texts = Annotated[list[str], BeforeValidator(_texts)]
Command = Annotated[list[str] | str, BeforeValidator(_texts)]  # argv, or a script
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
SecretName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]


class Parameter(Section):
    """Something of a recipe that its user may or, without a default, must choose."""

    about: str
    """What it is, in a sentence."""
    default: Text | None = None
    """Value where nobody says another."""
    choices: Texts = Field(default=[])
    """The only values, where there are few."""


class Profile(Section):
    """A named set of values of parameters."""

    about: str
    """When to take it, in a sentence."""
    parameters: dict[str, Text] = Field(default={})
    """Values of the recipe's parameters."""
    flaws: dict[str, str] = Field(default={})
    """Known failures that come with it, by code, each in a sentence: said before it runs."""


class Machine(Section):
    """What the steps need of the machine: what is rented, and what is checked before the first."""

    gpus: int = Field(default=0, ge=0)
    """GPUs of the machine."""
    gpu: str | None = None
    """Regular expression that each GPU's name matches, as offered and as nvidia-smi says it."""
    vram_gb: float = Field(default=0, ge=0)
    """Memory of each GPU in GB (10^9 bytes), as it is sold: 24 also for 24 GB with ECC."""
    disk_gb: float = Field(default=0, ge=0)
    """Free disk space before the first step."""
    memory_gb: float = Field(default=0, ge=0)
    """Memory of the machine."""
    cpus: int = Field(default=0, ge=0)
    """Cores of the machine."""
    min_driver: str | None = None
    """Oldest driver of NVIDIA's that will do."""
    cuda: str | None = None
    """Oldest CUDA version that the driver must know."""
    download_mbps: float = Field(default=0, ge=0)
    """Megabits a second from the internet."""
    image: str | None = None
    """Docker image that a rented machine starts from."""


class Limit(Section):
    """A number in a line that must not leave its range; what is not finite has left it."""

    group: str
    """Named group of the pattern that holds the number."""
    above: float | None = None
    """Largest number that is still in the range."""
    below: float | None = None
    """Smallest number that is still in the range."""
    from_step: int | None = Field(default=None, ge=0)
    """Lines of an earlier step (group `step`) do not count."""


class Signature(Section):
    """A line in a log that says what went wrong."""

    code: str = Field(pattern=r"^RDTL-[A-Z]\d{3}$")
    """Stable code of the failure."""
    pattern: str
    """Regular expression, searched in each line."""
    cause: str
    """What is wrong then."""
    fix: str
    """What to do about it."""
    severity: Literal["error", "warning"] = "error"
    """error ends the step at once, warning only tells."""
    remedy: Literal["wait-apt-lock", "retry", "halve-micro-batch"] | None = None
    """What helps without a person, where the step allows it under `remedies`."""
    limit: Limit | None = None
    """Counts only when a number of the line has left its range."""
    ignore_case: bool = False
    """Upper and lower case are the same."""
    only_after_failure: bool = False
    """The line also stands in healthy logs: it explains a failure and ends nothing."""


class Marker(Section):
    """A line in a log that says how far a step is."""

    name: str
    """What people call it; `checkpoint` is shown as the last checkpoint."""
    pattern: str
    """Regular expression with named groups such as step, loss, sps, gpu, checkpoint."""
    order: int | None = None
    """Markers with a number come in that order."""
    expect: dict[str, float | tuple[float, float] | str] = Field(default={})
    """What the group's number is, or lies between."""
    severity: Literal["error", "warning"] = "error"
    """error ends a step that differs, warning only tells."""


class SignatureFile(Section):
    """``configs/recipes/signatures/NAME.yaml``."""

    about: str
    """What its lines are about."""
    signatures: list[Signature] = Field(default=[])
    markers: list[Marker] = Field(default=[])


class Verify(Section):
    """How a finished step is told from one that only says so."""

    cheap: Command | None = None
    """Takes seconds: runs after the step, and again before it is skipped."""
    deep: Command | None = None
    """Takes minutes: runs after the step, and when asked for (`rdtl recipe verify`)."""
    timeout: Seconds = 600.0
    """How long a proof may take."""


class Step(Section):
    """One step of a recipe."""

    about: str = ""
    """What it does, in a sentence."""
    needs: list[str] = Field(default=[])
    """Steps that must have succeeded before."""
    argv: Texts = Field(default=[])
    """A program with its words, started as it is: no shell reads them."""
    script: str = ""
    """Instead of argv: text for bash -euo pipefail. In it `$name` is the shell's variable, and
    parameters and variables of the recipe are there under their names."""
    env: dict[str, Text] = Field(default={})
    """Variables of the command."""
    secrets: list[SecretName] = Field(default=[])
    """Names of secrets that the command gets as variables."""
    inputs: Texts = Field(default=[])
    """Files whose bytes decide whether a finished step is still right."""
    outputs: Texts = Field(default=[])
    """Files or directories that exist afterwards."""
    verify: Verify = Verify()
    takes: Seconds = 1.0
    """How long it takes as far as known: decides which of several ready steps goes first."""
    timeout: Seconds | None = None
    """How long it may take."""
    retries: int = Field(default=0, ge=0)
    """How often it is started again after a failure."""
    retry_wait: Seconds = 5.0
    """Time between two tries."""
    resources: dict[str, Positive] = Field(default={})
    """Tokens that it holds while it runs."""
    signatures: list[str | Signature] = Field(default=[])
    """Names of files of configs/recipes/signatures, or signatures themselves."""
    markers: list[str | Marker] = Field(default=[])
    """Names of files of configs/recipes/signatures, or markers themselves."""
    start: Seconds | None = None
    """The first line that a marker reads a group `step` from comes within this time."""
    stall: Seconds | None = None
    """So does each further one; where no marker has such a group, any line."""
    remedies: list[Literal["wait-apt-lock", "retry", "halve-micro-batch"]] = Field(default=[])
    """What may be done about a signature without asking."""
    always: bool = False
    """A success is never skipped (an upload, a destroy)."""
    after_failure: bool = False
    """Run as soon as what it needs has ended, however it did."""

    @model_validator(mode="after")
    def _one_command(self) -> Step:
        if bool(self.argv) == bool(self.script):
            raise ValueError("a step has either argv or script")
        return self


class Recipe(Section):
    """A recipe. `${name}` stands for a parameter or variable, in every text but scripts."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9/_-]*$")
    """As in its path below configs/recipes."""
    about: str
    """What it leads to, in a sentence."""
    parameters: dict[Name, Parameter] = Field(default={})
    profile: str | None = None
    """The profile that is taken where nobody says another."""
    profiles: dict[str, Profile] = Field(default={})
    variables: dict[Name, Text] = Field(default={})
    """Names for longer texts; a variable may use those before it."""
    secrets: dict[SecretName, str] = Field(default={})
    """Names of secrets and what each is for. Values never stand in a recipe."""
    optional_secrets: list[SecretName] = Field(default=[])
    """Those of them that nobody must give: steps then find them empty."""
    machine: dict[str, Any] = Field(default={})
    """What the steps need of the machine (keys below); may name parameters."""
    tokens: dict[str, Positive] = Field(default={"net": 2, "disk": 1, "gpu": 1})
    """How many tokens of each resource there are."""
    working_directory: Text = "${run}"
    """Where commands start; relative paths of steps are below it."""
    files: list[str] = Field(default=[])
    """Files beside the recipe that it needs: they lie in `${files}` on the machine."""
    code: bool = False
    """Send this installation's packages to `${code}`."""
    signatures: list[str | Signature] = Field(default=[])
    """Looked for in the log of every step."""
    steps: dict[Name, dict[str, Any]]
    """The steps by their names (keys below)."""

    @model_validator(mode="after")
    def _profile_exists(self) -> Recipe:
        if self.profile and self.profile not in self.profiles:
            raise ValueError(f"profile {self.profile} is not one of: {', '.join(self.profiles)}")
        if unknown := set(self.optional_secrets) - set(self.secrets):
            raise ValueError(f"optional_secrets: {', '.join(sorted(unknown))} not among secrets")
        return self
