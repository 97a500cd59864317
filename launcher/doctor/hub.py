"""Public weights that a job would look for in the hub's cache, because it may not ask the hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from launcher import weights
from launcher.core.checks import Finding
from launcher.doctor.subject import Subject
from launcher.staging.uri import is_uri
from rdt.spec import card as cards

WEIGHTS = ("model.safetensors", "pytorch_model.bin")


class Wanted(NamedTuple):
    """Key of the configuration, code of the error that its job would end with, and hub id."""

    key: str
    code: str
    name: str

    @property
    def stage(self) -> str:
        """The one that loads it: evaluations also have what sweeps and `--checkpoint` name."""
        return "train" if self.key.startswith("train.") else "evaluate"


def findings(subject: Subject) -> list[Finding]:
    """What is wanted from the cache and not seen in it (RDTL-T036, RDTL-T020)."""
    found = []
    for one in dict.fromkeys(_wanted(subject)):
        if one.stage not in subject.bare:
            found.append(_elsewhere(one, subject))
        elif not _cached(one.name):
            found.append(_missing(one, subject))
    return found


def _wanted(subject: Subject) -> Iterator[Wanted]:
    for key, place in subject.checkpoints():
        if _is_id(place):
            yield Wanted(key, "RDTL-T036", place)
    train, evaluate = subject.section("train"), subject.section("evaluate")
    # Only a network that does not see by itself takes encoded instructions.
    foreign = bool(train and train["checkpoint"] and train["language"])
    if train and foreign:
        yield from _encoders("train", train, {"vision": cards.SIGLIP})
    if evaluate and "rdt" in evaluate["policies"]:
        place = subject.named or evaluate["checkpoint"]
        told = weights.card(place) if place else None
        own = {"vision": cards.SIGLIP, "language": cards.T5} if foreign and not place else {}
        yield from _encoders("evaluate", evaluate, told["encoders"] if told else own)


def _encoders(section: str, said: dict[str, Any], own: dict[str, str]) -> Iterator[Wanted]:
    """What is named; where nothing is, the encoders with which the network was trained."""
    for key in ("vision", "language"):
        if (place := said[key] or own.get(key, "")) and _is_id(place):
            yield Wanted(f"{section}.{key}", "RDTL-T020", place)


def _is_id(place: str) -> bool:
    """As `launcher.config` leaves it: what is a path was made absolute there."""
    return "/" in place and not is_uri(place) and not Path(place).is_absolute()


def _cached(name: str) -> bool:
    if importlib.util.find_spec("huggingface_hub") is None:
        return False
    from huggingface_hub import try_to_load_from_cache  # slow to import, and seldom needed

    found = [isinstance(try_to_load_from_cache(name, file), str) for file in WEIGHTS]
    return isinstance(try_to_load_from_cache(name, "config.json"), str) and any(found)


def _missing(wanted: Wanted, subject: Subject) -> Finding:
    """Nodes of a cluster may have a cache that this machine does not see."""
    what = "the hub's cache lacks it here"
    if subject.site.kind == "local" and not subject.site.environment:  # it may name another cache
        return _finding(wanted, what, "error")
    return _finding(wanted, f"{what}; the nodes' may be another", "warning")


def _elsewhere(wanted: Wanted, subject: Subject) -> Finding:
    """A container sees the files that are named, and no cache unless the site binds one."""
    if subject.site.activate or subject.site.binds:
        return _finding(wanted, "jobs run where the hub's cache may be another", "warning")
    return _finding(wanted, "jobs run in an image, which has no cache of the hub", "error")


def _finding(wanted: Wanted, what: str, severity: Literal["error", "warning"]) -> Finding:
    staged = f"{wanted.key}=hf://models/{wanted.name}"
    if wanted.name == cards.T5:  # 45 GB, and 19 GB of memory beside the network
        staged = f"{wanted.key}=FOLDER of encoded instructions (rdtl data embed)"
    return Finding(
        wanted.code,
        severity,
        f"{wanted.name} would not be found: {what}",
        where=wanted.key,
        why="jobs do not ask the hub: this one would end, perhaps after hours in a queue",
        fix=f"say {staged}, which is there before the job looks; or name a folder, or on a bare "
        f"machine first: hf download {wanted.name}",
    )
