"""A run that is continued on other machines: as many samples in a step, on other ranks.

Where training is computed may change between two starts of a run (`rdt.spec.recipe`
lists the keys), what it computes may not. The plan is rewritten only when no task of the
training is alive, so every node of an attempt reads the same one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from launcher.backend import Backend
from launcher.core import files
from launcher.core.errors import RefusedError
from launcher.core.plan import Plan
from launcher.core.runs import RunDir
from launcher.drive import Driver
from launcher.extend import base, in_image
from rdt.spec.recipe import BOOKKEEPING

TRAIN, MOVED = "train", "moved.train."


def regrouped(old: Plan, new: Plan) -> Plan | None:
    """``old`` with the training of ``new``, or None when more differs than where it runs."""
    stages = {stage.name: stage for stage in new.stages}
    if TRAIN not in stages or _kept(old.config) != _kept(new.config):
        return None
    if old.config == new.config or [base(s.name) for s in old.stages] != list(stages):
        return None
    made = [in_image(stages[TRAIN], s.container) if s.name == TRAIN else s for s in old.stages]
    return replace(old, stages=tuple(made), config=new.config)


def _kept(config: dict[str, Any]) -> dict[str, Any]:
    train = {k: v for k, v in (config.get(TRAIN) or {}).items() if k not in BOOKKEEPING}
    return {**config, TRAIN: train}


def adopt(run: RunDir, old: Plan, new: Plan, config_yaml: str, backend: Backend) -> Plan:
    """The plan to go on with: ``new``'s training in ``old`` where they differ in that.

    Raises RefusedError RDTL-T068 while a task of the training is alive, or may be.
    """
    changed = regrouped(old, new)
    if changed is None:
        return old
    driver = Driver(run, old, backend)
    driver.adopt()
    state = next(view.state for view in driver.look() if view.stage.name == TRAIN)
    if state == "done":
        return old
    if state in ("active", "unknown"):
        raise _alive(run, state)
    number = len(run.ledger.names(MOVED)) + 1
    run.ledger.publish(f"{MOVED}{number}", changed=_changed(old.config[TRAIN], new.config[TRAIN]))
    files.write_text(run.config, config_yaml)
    files.write_json(run.plan, changed.to_dict())
    return changed


def _changed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, list[Any]]:
    """Then and now of every key that differs."""
    return {key: [old.get(key), new[key]] for key in new if old.get(key) != new[key]}


def _alive(run: RunDir, state: str) -> RefusedError:
    return RefusedError(
        "RDTL-T068",
        "the training of this run goes on; where it runs cannot change now",
        where=f"{run.root}: stage {TRAIN} is {state}",
        why="its nodes would read two different plans",
        fix=f"rdtl runs cancel {run.root}, then run the same command again; it continues from the "
        "newest checkpoint",
    )
