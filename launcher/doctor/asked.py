"""What is asked of ``jobs.check`` where h5py, torch and the simulator are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.checks import NothingToLookAtError
from launcher.doctor.subject import Subject
from launcher.sites import Site
from launcher.staging.uri import is_uri
from rdt.spec import planned

FEW = 5
"""Demonstrations of each task that are looked at; all of them are for `rdtl data verify`."""


def simulator(site: Site, runs_dir: object) -> list[list[str]]:
    """A golden frame and a settled scene."""
    return [["simulator"]]


def data(subject: Subject) -> list[list[str]]:
    """The first demonstrations of each task of every set that lies here, as training reads them.

    Of a training on one set alone the check also knows whether few demonstrations are too few.
    """
    config: dict[str, Any] = subject.config or {}
    if not planned.reads_demonstrations(config):
        raise NothingToLookAtError("this configuration reads no demonstrations")
    sets = [one for one in config["dataset"]["sets"] if _here(subject, one["path"])]
    if not sets:
        raise NothingToLookAtError("its demonstrations do not lie here: the run verifies them")
    alone = subject.section("train") and len(config["dataset"]["sets"]) == 1
    training = {key: config[key] for key in ("seed", "train", "dataset")} if alone else None
    more = {"contract": config["dataset"]["contract"], "statistics": None, "name": ""}
    more |= {"at_most": FEW, "training": training}
    return [["data", json.dumps(one | more)] for one in sets]


def checkpoint(subject: Subject) -> list[list[str]]:
    """Every checkpoint that is named: card, contract, which copy, shapes, horizon."""
    named = {place: key for key, place in subject.checkpoints() if _here(subject, place)}
    if not named:
        raise NothingToLookAtError("no checkpoint is named that lies here")
    return [["checkpoint", json.dumps(_request(subject, place))] for place in named]


def _here(subject: Subject, place: str) -> bool:
    """Whether a place is to be read on this machine; nodes of a cluster may see what it does not.

    What a local site lacks is asked for all the same, and named by who reads it.
    """
    path = Path(place)
    elsewhere = subject.site.kind != "local" and path.is_absolute() and not files.there(path)
    return not is_uri(place) and not elsewhere


def _request(subject: Subject, place: str) -> dict[str, Any]:
    train = subject.section("train")
    evaluate = subject.section("evaluate") or {}
    begins = train is not None and train["checkpoint"] == place
    contract = (subject.config or {}).get("dataset", {}).get("contract") if begins else None
    executed = None if begins else evaluate.get("execution_horizon")
    weights = evaluate.get("weights", "auto")
    return {"source": place, "weights": weights, "contract": contract, "executed": executed}
