"""Assets: what a configuration names by URI is copied into the run before anything reads it.

Pure: configuration in, configuration with paths inside the run and a list of
assets out. The copying is ``jobs.stage``, the first stage of the plan.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from launcher.core.errors import UsageError
from launcher.core.runs import RunDir
from launcher.schema import RunConfig

SCHEMES = ("file",)


@dataclass(frozen=True)
class Asset:
    """``source`` (absolute path) is copied to ``target`` (absolute path inside the run)."""

    key: str
    source: str
    target: str


def is_uri(text: str) -> bool:
    """Whether a configured path is a URI."""
    return "://" in text


def source_of(uri: str, key: str) -> Path:
    """The path of a ``file://`` URI; UsageError RDTL-G001 for any other."""
    parts = urlsplit(uri)
    path = Path(unquote(parts.path))
    if parts.scheme in SCHEMES and parts.netloc in ("", "localhost") and path.is_absolute():
        return path
    raise UsageError(
        "RDTL-G001",
        f"{uri} cannot be staged",
        where=key,
        why="assets come from file:///absolute/path so far",
        fix=f"copy it to a shared file system and set {key}=file:///PATH",
    )


def split(config: RunConfig, run: RunDir) -> tuple[RunConfig, list[Asset]]:
    """``config`` with every URI replaced by its path in the run, and what is to be copied."""
    found: list[Asset] = []

    def inside(key: str, value: str | None) -> str | None:
        if value is None or not is_uri(value):
            return value
        source = source_of(value, key)
        # The key in the path keeps two files of the same name apart.
        target = run.root / "assets" / key / source.name
        found.append(Asset(key, str(source), str(target)))
        return str(target)

    sets = [
        entry.model_copy(update={"path": inside(f"dataset.sets.{number}.path", entry.path)})
        for number, entry in enumerate(config.dataset.sets)
    ]
    dataset = config.dataset.model_copy(update={"sets": sets})
    evaluate = config.evaluate
    if evaluate:
        named = {
            "checkpoint": inside("evaluate.checkpoint", evaluate.checkpoint),
            "demonstrations": inside("evaluate.demonstrations", evaluate.demonstrations),
        }
        evaluate = evaluate.model_copy(update=named)
    return config.model_copy(update={"dataset": dataset, "evaluate": evaluate}), found


def to_config(assets: list[Asset]) -> list[dict[str, Any]]:
    """JSON form for the plan."""
    return [asdict(asset) for asset in assets]
