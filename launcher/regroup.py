"""A run that is continued on other machines, or with other limits.

Where training is computed may change between two starts of a run (`rdt.spec.recipe`
lists the keys), what it computes may not. Of a command its limits may change; on how many
ranks it runs may decide what it computes. The plan is rewritten only when no task of the
stage is alive, so every node of an attempt reads the same one.
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
from rdt.spec import recipe

TRAIN, COMMAND, MOVED = "train", "command", "moved."


def regrouped(old: Plan, new: Plan) -> Plan | None:
    """``old`` with the training of ``new``, or with its limits of a command; None when more
    differs, or nothing."""
    if COMMAND in new.config:
        return _limited(old, new)
    stages = {stage.name: stage for stage in new.stages}
    if TRAIN not in stages or _kept(old.config) != _kept(new.config):
        return None
    if old.config == new.config or [base(s.name) for s in old.stages] != list(stages):
        return None
    made = [in_image(stages[TRAIN], s.container) if s.name == TRAIN else s for s in old.stages]
    return replace(old, stages=tuple(made), config=new.config)


def _limited(old: Plan, new: Plan) -> Plan | None:
    if old.config != new.config or shape(old) != shape(new) or _limits(old) == _limits(new):
        return None
    first, asked = old.stages[0], new.stages[0]
    first = replace(first, minutes=asked.minutes, memory_mb=asked.memory_mb)
    return replace(old, stages=(first, *old.stages[1:]))


def _limits(plan: Plan) -> dict[str, int]:
    return {"minutes": plan.stages[0].minutes, "memory_mb": plan.stages[0].memory_mb}


def shape(plan: Plan) -> dict[str, Any]:
    """Of a command: the ranks that it finds; they stay when its run is continued."""
    if COMMAND not in plan.config:
        return {}
    stage = plan.stages[0]
    return {"nodes": stage.nodes, "gpus": stage.gpus_per_node, "per": stage.per}


def _kept(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, TRAIN: recipe.deciding(config.get(TRAIN) or {})}


def adopt(run: RunDir, old: Plan, new: Plan, config_yaml: str, backend: Backend) -> Plan:
    """The plan to go on with: ``new``'s training, or limits, in ``old`` where they differ in that.

    Raises RefusedError RDTL-T068 while a task of that stage is alive, or may be.
    """
    changed = regrouped(old, new)
    if changed is None:
        return old
    name = old.stages[0].name if COMMAND in old.config else TRAIN
    driver = Driver(run, old, backend)
    driver.adopt()
    state = next(view.state for view in driver.look() if view.stage.name == name)
    if state == "done":
        return old
    if state in ("active", "unknown"):
        raise _alive(run, name, state, changes(old, changed))
    number = len(run.ledger.names(f"{MOVED}{name}.")) + 1
    run.ledger.publish(f"{MOVED}{name}.{number}", changed=changes(old, changed))
    files.write_text(run.config, config_yaml)
    files.write_json(run.plan, changed.to_dict())
    return changed


def changes(old: Plan, new: Plan) -> dict[str, list[Any]]:
    """Then and now of every setting in which :func:`regrouped` may change a plan."""
    if COMMAND in new.config:
        then, now = _limits(old), _limits(new)
    else:
        then, now = old.config.get(TRAIN) or {}, new.config.get(TRAIN) or {}
    return {key: [then.get(key), now[key]] for key in now if then.get(key) != now[key]}


def _alive(run: RunDir, name: str, state: str, changed: dict[str, list[Any]]) -> RefusedError:
    asked = "; ".join(f"{key}: {then!r} there, {now!r} now" for key, (then, now) in changed.items())
    return RefusedError(
        "RDTL-T068",
        f"stage {name} of this run goes on; where it runs and its limits cannot change now",
        where=f"{run.root}: stage {name} is {state}; {asked}",
        why="its nodes would read two different plans",
        fix=f"rdtl runs cancel {run.root}, then run the same command again; it continues from what "
        "was saved. Or the command as it was before: it watches what runs",
    )
