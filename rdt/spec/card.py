"""The card of a policy: what it eats, what it emits and where it comes from.

``card.json`` lies beside the weights and names them by their digest. A reader
refuses a card that lacks a field or has one that it does not know, because a
guessed convention looks like a weak policy and not like an error.
"""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError
from rdt.spec.contract import UNIFIED_SIZE, require_same

FILE = "card.json"
FORMAT = 2

SIGLIP, T5 = "google/siglip-so400m-patch14-384", "google/t5-v1_1-xxl"


@dataclass(frozen=True)
class Training:
    """How this program made the weights."""

    steps: int
    seed: int
    effective_batch: int
    dataset_digest: str
    suite: str
    task: str
    demonstrations: int
    windows: int


@dataclass(frozen=True)
class Card:
    """Everything that an evaluation must know besides the network's own config.json.

    ``encoders`` name the makers of condition tokens: "vision" (trained, or SigLIP) and
    "language" (word-hash, or T5). ``weights`` is "ema" or "raw", ``dtype`` what the file
    of weights holds, ``weights_sha256`` that file's digest. ``state_mean`` and
    ``state_std`` have 128 numbers in the units of the contract (0 and 1 where it does not
    normalise); ``horizon`` counts control steps; ``camera_size`` is that of the pictures in
    training, in pixels, 0 for adopted weights, of which it is unknown. ``origin`` is "trained"
    (then ``training`` is there) or "adopted".
    """

    contract: dict[str, Any]
    encoders: dict[str, str]
    weights: str
    dtype: str
    weights_sha256: str
    state_mean: tuple[float, ...]
    state_std: tuple[float, ...]
    statistics_digest: str
    horizon: int
    camera_size: int
    origin: str
    training: Training | None
    versions: dict[str, str]
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Write ``folder/card.json`` whole."""
        files.write_json(folder / FILE, asdict(self))

    def require_weights(self, path: Path, where: Path) -> None:
        """Refuse weights that are not those for which the card in ``where`` was written.

        Raises RefusedError RDTL-T012 with both digests.
        """
        found = weights_sha256(path)
        if found != self.weights_sha256:
            raise RefusedError(
                "RDTL-T012",
                "the card belongs to other weights",
                where=f"{path}: sha256 {found[:12]}…, {where / FILE} says "
                f"{self.weights_sha256[:12]}…",
                why="these weights may have been trained on other units, signs or statistics",
                fix=f"restore the weights, or remove {where / FILE} and adopt them: "
                f"rdtl checkpoint adopt {path} --contract NAME",
            )


def weights_sha256(path: Path) -> str:
    """Digest of a file of weights, 64 hex digits."""
    return files.sha256(path)


def statistics_digest(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    """Twelve hex digits over the numbers with which states are normalised."""
    return hashlib.sha256(json.dumps([list(mean), list(std)]).encode()).hexdigest()[:12]


def read(folder: Path) -> Card:
    """Read and check ``folder/card.json``.

    Raises RdtlError RDTL-T012 when there is no card, RefusedError RDTL-T012 when a
    field is missing, unknown, of another type or at odds with this version's contract.
    """
    path = folder / FILE
    data = _json(path)
    found = data.get("format")
    _require(found == FORMAT, path, "format", found, f"{FORMAT}: a card of this version")
    _require_fields(data, {field.name for field in fields(Card)}, str(path))
    _require_types(data, Card, path)
    require_same(data["contract"], str(path))
    _require_choices(path, data)
    mean, std = tuple(data["state_mean"]), tuple(data["state_std"])
    _require(len(mean) == UNIFIED_SIZE, path, "state_mean", len(mean), f"{UNIFIED_SIZE} numbers")
    _require(len(std) == UNIFIED_SIZE, path, "state_std", len(std), f"{UNIFIED_SIZE} numbers")
    digest, expected = data["statistics_digest"], statistics_digest(mean, std)
    _require(digest == expected, path, "statistics_digest", digest, expected)
    training = _training(path, data["training"])
    return Card(**{**data, "state_mean": mean, "state_std": std, "training": training})


def require_contract(found: str, wanted: str, source: str) -> None:
    """Raise RefusedError RDTL-T012 when the weights of ``source`` speak another contract."""
    if found == wanted:
        return
    raise RefusedError(
        "RDTL-T012",
        "the checkpoint was trained under another contract",
        where=f"{source}: {found}; dataset.contract = {wanted}",
        why="its actions mean something else; fine-tuning would begin with wrong ones",
        fix="choose the contract of the checkpoint, or another checkpoint",
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        data = files.read_json(path)
        if isinstance(data, dict):
            return data
        problem = "no JSON object"
    except (OSError, ValueError) as error:
        problem = str(error)
    raise RdtlError(
        "RDTL-T012",
        "this directory holds no readable policy card",
        where=f"{path}: {problem}",
        why="without its card a policy's units, signs and statistics are unknown",
        fix="name a policy directory written by training (config.json, model.safetensors, "
        "card.json), or give a foreign checkpoint a card: "
        f"rdtl checkpoint adopt {path.parent} --contract NAME",
    )


def _training(path: Path, data: dict[str, Any] | None) -> Training | None:
    if data is None:
        return None
    _require_fields(data, {field.name for field in fields(Training)}, f"{path}: training")
    _require_types(data, Training, path, "training.")
    return Training(**data)


def _require_choices(path: Path, data: dict[str, Any]) -> None:
    encoders = data["encoders"]
    for field, found, choices in (
        ("weights", data["weights"], ("ema", "raw")),
        ("origin", data["origin"], ("trained", "adopted")),
        ("encoders.vision", encoders.get("vision"), ("trained", SIGLIP)),
        ("encoders.language", encoders.get("language"), ("word-hash", T5)),
    ):
        _require(found in choices, path, field, found, " or ".join(choices))
    trained = data["training"] is not None
    _require(trained == (data["origin"] == "trained"), path, "training", trained, data["origin"])


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


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _numbers(value: Any) -> bool:
    """Whether it is a list of finite numbers; true and false are none."""
    return isinstance(value, list) and all(
        type(number) in (int, float) and abs(number) < math.inf for number in value
    )


TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a whole number, not negative", lambda value: type(value) is int and value >= 0),
    "str": ("a text", lambda value: isinstance(value, str)),
    "dict[str, Any]": ("an object", lambda value: isinstance(value, dict)),
    "dict[str, str]": ("an object of texts", _texts),
    "tuple[float, ...]": ("a list of finite numbers", _numbers),
    "Training | None": ("an object or null", lambda value: value is None or type(value) is dict),
}
"""By the annotation of a field: what its JSON must be, in words and as a test."""


def _require_types(
    data: dict[str, Any], kind: type[Card] | type[Training], path: Path, prefix: str = ""
) -> None:
    for field in fields(kind):
        words, fits = TYPES[str(field.type)]
        value = data[field.name]
        _require(fits(value), path, prefix + field.name, value, words)


def _require(holds: bool, path: Path, field: str, found: object, expected: str) -> None:
    if not holds:
        raise RefusedError(
            "RDTL-T012",
            f"the policy card is of another version or was changed: {field}",
            where=f"{path}: {field} = {reprlib.repr(found)}, expected {expected}",
            why="the policy would be fed other numbers than in training",
            fix="take the card that was written with the weights, or train again",
        )
