"""What ``--json`` prints of what lies on disks: data, checkpoints, images, the cache of a site."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from docs.results.problems import Problem
from launcher.core.checks import Finding
from launcher.images.store import BuiltImage


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


class Adopted(TypedDict):
    path: str
    card: dict[str, Any]


class Exported(TypedDict):
    source: str
    folder: str
    bytes: dict[str, int]


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


RESULTS: dict[str, Any] = {
    "checkpoint inspect": dict[str, Any],
    "checkpoint adopt": Adopted,
    "checkpoint export": Exported,
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
    "stage in": Staged,
    "stage out": Sent,
    "stage verify": Verified,
    "stage list": Cached,
    "stage clean": CacheCleaned,
    "stage login": LoggedIn,
}
"""Command → what it prints."""
