"""Finds and reads recipes and files of signatures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import config
from launcher.core.errors import UsageError
from launcher.dag.schema import Recipe, SignatureFile

KIND = "recipes"
SIGNATURES = "signatures"
NO_RECIPES = (SIGNATURES, "parts")
"""Folders of what recipes are made of."""


@dataclass(frozen=True)
class Loaded:
    """A recipe and the file that it came from."""

    recipe: Recipe
    path: Path


def load(name: str) -> Loaded:
    """The recipe called ``name`` (openpi/waypoint-ae) or lying there; UsageError as for others."""
    path = Path(name)
    if not (path.suffix in (".yaml", ".yml") and path.exists()) and name not in (found := names()):
        near = [one for one in found if name.split("/")[-1] in one]
        raise UsageError(
            "RDTL-U002",
            f"no recipe called {name}",
            where=", ".join(str(root / KIND) for root in config.config_roots()),
            fix=f"choose one of: {', '.join(near or found) or 'none found'}",
        )
    path = config.find(KIND, name)
    return Loaded(config.validate(Recipe, _whole(path), str(path)), path)


def _whole(path: Path, *above: Path) -> dict[str, Any]:
    """The mapping of a file, laid over that of the recipe which it extends."""
    if path in above:
        raise UsageError("RDTL-U002", "a recipe extends itself", where=" → ".join(map(str, above)))
    data = config.read_yaml(path)
    base = data.pop("extends", None)
    if not isinstance(base, str | None):
        raise UsageError("RDTL-U001", "extends is the name of one recipe", where=str(path))
    return _laid_over(_whole(config.find(KIND, base), path, *above), data) if base else data


def _laid_over(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Mappings are merged key by key, everything else is replaced."""
    merged = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _laid_over(base[key], value) if both else value
    return merged


def names() -> list[str]:
    """Names of all recipes in all configuration roots."""
    return sorted(
        {
            path.relative_to(root / KIND).with_suffix("").as_posix()
            for root in config.config_roots()
            for path in (root / KIND).rglob("*.yaml")
            if path.relative_to(root / KIND).parts[0] not in NO_RECIPES
        }
    )


def signature_file(name: str) -> SignatureFile:
    """The shared signatures and markers called ``name``; UsageError RDTL-U002 if there are none."""
    path = config.find(f"{KIND}/{SIGNATURES}", name)
    return config.validate(SignatureFile, config.read_yaml(path), str(path))
