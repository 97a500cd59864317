"""The card of a policy: what it eats, what it emits and where it comes from.

``card.json`` lies beside the weights. A reader refuses a card that lacks a field
or has one that it does not know, because a guessed convention looks like a weak
policy and not like an error.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError
from rdt.spec.contract import UNIFIED_SIZE, require_same

FILE = "card.json"


@dataclass(frozen=True)
class Training:
    """How the weights were made. ``weights`` and ``dtype`` say which copy lies in the file."""

    steps: int
    seed: int
    effective_batch: int
    weights: str
    dtype: str
    dataset_digest: str
    suite: str
    task: str
    demonstrations: int
    windows: int


@dataclass(frozen=True)
class Card:
    """Everything that an evaluation must know besides the network's own config.json.

    ``state_mean`` and ``state_std`` have 128 numbers in the units of the contract;
    ``camera_size`` is in pixels, ``horizon`` in control steps.
    """

    contract: dict[str, Any]
    state_mean: tuple[float, ...]
    state_std: tuple[float, ...]
    statistics_digest: str
    horizon: int
    camera_size: int
    training: Training
    versions: dict[str, str]
    format: int = 1

    def write(self, folder: Path) -> None:
        """Write ``folder/card.json`` whole."""
        files.write_json(folder / FILE, asdict(self))


def statistics_digest(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    """Twelve hex digits over the numbers with which states are normalised."""
    return hashlib.sha256(json.dumps([list(mean), list(std)]).encode()).hexdigest()[:12]


def read(folder: Path) -> Card:
    """Read and check ``folder/card.json``.

    Raises RdtlError RDTL-T012 when there is no card, RefusedError RDTL-T012 when a
    field is missing, unknown or at odds with this version's contract.
    """
    path = folder / FILE
    try:
        data: dict[str, Any] = files.read_json(path)
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise RdtlError(
            "RDTL-T012",
            "this directory holds no readable policy card",
            where=f"{path}: {error}",
            why="without its card a policy's units, signs and statistics are unknown",
            fix="name a policy directory written by training (config.json, model.safetensors, "
            "card.json)",
        ) from error
    _require_fields(data, {field.name for field in fields(Card)}, str(path))
    _require_fields(
        data["training"], {field.name for field in fields(Training)}, f"{path}: training"
    )
    require_same(data["contract"], str(path))
    mean, std = tuple(data["state_mean"]), tuple(data["state_std"])
    _require(len(mean) == UNIFIED_SIZE, path, "state_mean", len(mean), f"{UNIFIED_SIZE} numbers")
    _require(len(std) == UNIFIED_SIZE, path, "state_std", len(std), f"{UNIFIED_SIZE} numbers")
    expected = statistics_digest(mean, std)
    _require(
        data["statistics_digest"] == expected,
        path,
        "statistics_digest",
        data["statistics_digest"],
        expected,
    )
    training = Training(**data["training"])
    return Card(**{**data, "state_mean": mean, "state_std": std, "training": training})


def _require_fields(data: dict[str, Any], expected: set[str], where: str) -> None:
    for name in sorted(expected ^ set(data)):
        state = "is missing" if name in expected else "is not known"
        raise RefusedError(
            "RDTL-T012",
            f"the policy card does not fit: field {name} {state}",
            where=f"{where}: {name}",
            why="a card of another version may mean other conventions",
            fix="train again with this version, or evaluate with the version that wrote the card",
        )


def _require(holds: bool, path: Path, field: str, found: object, expected: str) -> None:
    if not holds:
        raise RefusedError(
            "RDTL-T012",
            f"the policy card contradicts itself in {field}",
            where=f"{path}: {field} = {found!r}, expected {expected}",
            why="states would be normalised with other numbers than in training",
            fix="the file was changed after training: take the original, or train again",
        )
