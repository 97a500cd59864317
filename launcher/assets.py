"""Assets: what a configuration names by URI is staged before anything reads it.

Pure: configuration in, configuration with paths inside the run and a list of
assets out. The fetching is ``launcher.staging.job``, the first stage of the plan.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from launcher.core.runs import RunDir
from launcher.schema import RunConfig
from launcher.staging import uri

PLACES = {
    "train": ("checkpoint", "vision", "language"),
    "evaluate": ("checkpoint", "demonstrations", "vision", "language"),
}
"""Keys under which a file or folder may be named by its URI, beside the sets and what is swept."""


@dataclass(frozen=True)
class Asset:
    """``uri`` is staged into the site's cache; ``target`` (inside the run) leads to it."""

    key: str
    uri: str
    target: str


def split(config: RunConfig, run: RunDir) -> tuple[RunConfig, list[Asset]]:
    """``config`` with every URI replaced by its path in the run, and what is to be staged.

    Raises UsageError RDTL-G019 for a URI that names no place.
    """
    found: list[Asset] = []

    def inside(key: str, value: str) -> str:
        if not uri.is_uri(value):
            return value
        source = uri.parse(value, key)
        # The key in the path keeps two files of the same name apart.
        target = run.root / "assets" / key / source.name
        found.append(Asset(key, str(source), str(target)))
        return str(target)

    sets = [
        entry.model_copy(update={"path": inside(f"dataset.sets.{number}.path", entry.path)})
        for number, entry in enumerate(config.dataset.sets)
    ]
    changed: dict[str, Any] = {"dataset": config.dataset.model_copy(update={"sets": sets})}
    for name, keys in PLACES.items():
        if section := getattr(config, name):
            named = {key: value for key in keys if (value := getattr(section, key))}
            update = {key: inside(f"{name}.{key}", value) for key, value in named.items()}
            changed[name] = section.model_copy(update=update)
    if config.sweep:
        numbered = enumerate(config.sweep.checkpoints)
        swept = [inside(f"sweep.checkpoints.{number}", value) for number, value in numbered]
        changed["sweep"] = config.sweep.model_copy(update={"checkpoints": swept})
    return config.model_copy(update=changed), found


def to_config(assets: list[Asset]) -> list[dict[str, Any]]:
    """JSON form for the plan."""
    return [asdict(asset) for asset in assets]
