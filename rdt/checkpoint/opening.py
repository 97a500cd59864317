"""What a checkpoint says of itself, before anything of it is loaded.

Nothing here costs memory: the network that config.json describes is built
without any (meta device) and compared, name by name and shape by shape, with
the header of the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from launcher.core import files
from launcher.core.checks import Finding
from launcher.core.errors import RefusedError, UsageError
from rdt.checkpoint import places, tensors
from rdt.checkpoint.places import Copy
from rdt.checkpoint.tensors import Stored
from rdt.encoders import VisionConfig, VisionTower
from rdt.model.config import RdtConfig, parse
from rdt.model.rdt import empty
from rdt.spec import card as cards
from rdt.spec.card import Card

Wanted = Literal["auto", "ema", "raw"]
VISION = "vision"
"""Section of config.json and prefix of the tensors of an encoder trained with the policy."""
GROUPS = ("model.blocks", "model", "lang_adaptor", "img_adaptor", "state_adaptor", VISION)


class Origin(NamedTuple):
    """Where weights come from.

    ``path`` is the file, ``config`` the config.json that describes it; ``layout`` is
    reference, policy, deepspeed or hub; ``weights`` raw or ema; ``dtype`` what is stored.
    """

    path: Path
    config: Path
    layout: str
    weights: str
    dtype: str


class Group(NamedTuple):
    """Tensors of one part of the network; ``dtypes`` counts parameters by type."""

    name: str
    tensors: int
    parameters: int
    dtypes: dict[str, int]


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint; ``data`` is the content of config.json, ``notes`` what was decided."""

    origin: Origin
    copies: tuple[Copy, ...]
    data: dict[str, Any]
    config: RdtConfig
    card: Card | None
    header: dict[str, Stored]
    notes: tuple[Finding, ...]

    def expected(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of the network that config.json describes.

        Raises RefusedError RDTL-T021 when it contradicts itself.
        """
        try:
            state = empty(self.config).state_dict()
            if VISION in self.data:
                with torch.device("meta"):
                    tower = VisionTower(VisionConfig(**self.data[VISION])).state_dict()
                state |= {f"{VISION}.{name}": tensor for name, tensor in tower.items()}
        except (ValueError, TypeError, KeyError, RuntimeError, ArithmeticError) as error:
            raise RefusedError(
                "RDTL-T021",
                "config.json describes no network",
                where=f"{self.origin.config}: {error}",
                why="its sizes contradict each other, so it was not saved with a network",
                fix="use the config.json that was saved with the weights",
            ) from error
        return {name: tuple(tensor.shape) for name, tensor in state.items()}

    def groups(self) -> list[Group]:
        """Parameters by part of the network and by type (RDTL-T022)."""
        found: dict[str, list[Stored]] = {}
        for name, stored in self.header.items():
            group = next((g for g in GROUPS if name.startswith(f"{g}.")), "other")
            found.setdefault(group, []).append(stored)
        return [_group(name, found[name]) for name in (*GROUPS, "other") if name in found]


def open_checkpoint(source: str | Path, weights: Wanted = "auto") -> Checkpoint:
    """Find the files of ``source`` (path or hub id) and read their headers.

    "auto" takes the average where it is float32, else the raw weights (RDTL-T002); a
    card beside one copy alone decides. Raises the errors of :mod:`rdt.checkpoint.places`
    and :mod:`rdt.checkpoint.tensors`, RefusedError RDTL-T021 for a config.json that is
    none, RDTL-T012 for a card that belongs to other weights.
    """
    found = places.copies(source)
    copy, notes = choose(found, weights)
    header = tensors.header(copy.path)
    if header and not any(stored.numel for stored in header.values()):
        raise places.sharded(copy.path)
    data, path = read_config(copy.path)
    card = cards.read(copy.path.parent) if has_card(copy) else None
    if card is not None:
        card.require_weights(copy.path, copy.path.parent)
    config = parse({key: data[key] for key in data if key != VISION}, str(path))
    origin = Origin(copy.path, path, copy.layout, copy.weights, dtype_text(header.values()))
    _require_dtype(card, origin)
    notes += _mixed(origin, header)
    return Checkpoint(origin, tuple(found), data, config, card, header, tuple(notes))


def chosen(source: str | Path, weights: Wanted = "auto") -> tuple[Copy, Card, list[Finding]]:
    """The copy that :func:`open_checkpoint` takes, its card and what was decided; reads no weights.

    Raises RdtlError RDTL-T012 without a card, and the errors of :mod:`rdt.checkpoint.places`.
    """
    copy, notes = choose(places.copies(source), weights)
    return copy, cards.read(copy.path.parent), notes


def has_card(copy: Copy) -> bool:
    """Whether a card lies beside a copy of the weights."""
    return (copy.path.parent / cards.FILE).is_file()


def read_config(path: Path) -> tuple[dict[str, Any], Path]:
    """Content and place of the config.json that belongs to a file of weights."""
    config = places.config_of(path)
    try:
        data = files.read_json(config)
        if isinstance(data, dict):
            return data, config
        problem = "no JSON object"
    except (OSError, ValueError) as error:
        problem = str(error)
    raise RefusedError(
        "RDTL-T021",
        "config.json cannot be read",
        where=f"{config}: {problem}",
        why="a network is built from its own config.json, never from assumed sizes",
        fix="use the config.json that was saved with the weights",
    )


def choose(found: Sequence[Copy], weights: Wanted) -> tuple[Copy, list[Finding]]:
    """The copy to load and what to say about the choice."""
    by_kind = {copy.weights: copy for copy in found}
    if weights != "auto":
        if weights in by_kind:
            return by_kind[weights], _distrust(by_kind[weights], "it is used, as asked for")
        raise UsageError(
            "RDTL-T034",
            f"this checkpoint has no {weights} weights",
            where=", ".join(f"{copy.weights}: {copy.path}" for copy in found),
            why="the average and the raw weights are different networks: none replaces the other",
            fix="leave --weights out, or name another checkpoint",
        )
    carded = [copy for copy in found if has_card(copy)]
    if len(found) == 1 or len(carded) == 1:
        copy = found[0] if len(found) == 1 else carded[0]
        return copy, _distrust(copy, "it is used, for lack of another copy or card")
    if doubts := _distrust(by_kind["ema"], "the raw weights are used"):
        return by_kind["raw"], doubts
    return by_kind["ema"], [Finding("RDTL-T002", "ok", "the average (float32) is used")]


def _distrust(copy: Copy, used: str) -> list[Finding]:
    """A warning for an average that is not float32."""
    if copy.weights != "ema":
        return []
    stored = tensors.header(copy.path).values()
    if all(tensor.dtype == torch.float32 for tensor in stored):
        return []
    return [
        Finding(
            "RDTL-T002",
            "warning",
            f"the average of the weights is kept in {dtype_text(stored)}: {used}",
            where=str(copy.path),
            why="in 16 bits late updates round away: such an average stands still after some "
            "thousand steps",
            fix="evaluate both copies (--weights ema, --weights raw) before you trust it",
        )
    ]


def _require_dtype(card: Card | None, origin: Origin) -> None:
    if card is not None and set(card.dtype.split(", ")) != set(origin.dtype.split(", ")):
        raise RefusedError(
            "RDTL-T012",
            "the card names another type than the weights have",
            where=f"{origin.path.parent / cards.FILE}: dtype = {card.dtype!r}, "
            f"{origin.path.name} holds {origin.dtype}",
            why="the digest is theirs, so the card was changed by hand, and perhaps not only there",
            fix="take the card that was written with the weights",
        )


def _mixed(origin: Origin, header: Mapping[str, Stored]) -> list[Finding]:
    if len({stored.dtype for stored in header.values()}) == 1:
        return []
    return [
        Finding(
            "RDTL-T022",
            "warning",
            f"the weights are stored in several types: {origin.dtype}",
            where=str(origin.path),
            why="config.json names no type, so each part kept the one that it happened to have",
            fix="nothing: loading casts all of them to the type that is asked for",
        )
    ]


def dtype_text(stored: Iterable[Stored]) -> str:
    """Types by falling number of parameters, e.g. "bfloat16, float32"."""
    return ", ".join(_dtypes(stored))


def _dtypes(stored: Iterable[Stored]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for tensor in stored:
        counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel
    return dict(counts.most_common())


def _group(name: str, stored: list[Stored]) -> Group:
    return Group(name, len(stored), sum(tensor.numel for tensor in stored), _dtypes(stored))
