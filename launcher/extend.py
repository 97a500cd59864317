"""What may be changed in a run that exists: sections may be added, and episodes cut anew.

A pipeline that trained yesterday evaluates today: the stages that exist stay as they are, new
ones join them, in the image of the old ones. An evaluation that was interrupted goes on in
more or fewer tasks: its array and what follows are then stages of a new name, so that nothing
that was recorded of the old tasks is taken for the new ones; the records stay. Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from launcher.core.plan import Plan, Stage
from launcher.core.runtimes import Container

SECTIONS = ("train", "evaluate")
CUT = ("evaluate", "videos", "report")
"""Stages whose tasks depend on how the episodes are cut."""


def extended(old: Plan, new: Plan) -> Plan | None:
    """``old`` with the stages that only ``new`` has, or None when anything else differs."""
    if not _only_adds(old.config, new.config):
        return None
    known = {stage.name: stage for stage in old.stages}
    if not known.keys() <= {stage.name for stage in new.stages}:
        return None
    if any(
        _without_place(known[s.name]) != _without_place(s) for s in new.stages if s.name in known
    ):
        return None
    image = _image(old)
    stages = tuple(known.get(stage.name) or in_image(stage, image) for stage in new.stages)
    if len(stages) == len(old.stages):
        return None
    return Plan(old.name, old.site, stages, new.config)


def recut(old: Plan, new: Plan) -> Plan | None:
    """``old`` with its episodes cut as in ``new``, or None when that is not all that differs."""
    if not _only_cut(old.config, new.config):
        return None
    number = 1 + max(_number(stage.name) for stage in old.stages)
    names = {name: f"{name}-{number}" for name in CUT}
    kept = {stage.name: stage for stage in old.stages if base(stage.name) not in CUT}
    image = _image(old)
    stages = tuple(
        kept.get(stage.name)
        or replace(
            in_image(stage, image),
            name=names.get(stage.name, stage.name),
            needs=tuple(names.get(parent, parent) for parent in stage.needs),
        )
        for stage in new.stages
    )
    return Plan(old.name, old.site, stages, new.config)


def base(name: str) -> str:
    """``evaluate-2`` is the second cut of ``evaluate``."""
    return name.rpartition("-")[0] or name


def _number(name: str) -> int:
    return int(name.rpartition("-")[2]) if base(name) != name else 1


def _only_cut(old: dict[str, Any], new: dict[str, Any]) -> bool:
    then, now = old.get("evaluate"), new.get("evaluate")
    if not then or not now or then["shards"] == now["shards"]:
        return False
    return {**old, "evaluate": {**then, "shards": now["shards"]}} == new


def _only_adds(old: dict[str, Any], new: dict[str, Any]) -> bool:
    added = {key for key in SECTIONS if old.get(key) is None and new.get(key) is not None}
    same = {key: value for key, value in old.items() if key not in added}
    return bool(added) and same == {key: value for key, value in new.items() if key not in added}


def _without_place(stage: Stage) -> Stage:
    return replace(stage, container=None, argv=stage.argv[1:])


def _image(plan: Plan) -> Container | None:
    return next((stage.container for stage in plan.stages if stage.container), None)


def in_image(stage: Stage, image: Container | None) -> Stage:
    """A new stage in the very image of the old ones, which may have been built anew meanwhile."""
    if stage.container is None or image is None:
        return stage
    container = replace(image, binds=stage.container.binds, passed=stage.container.passed)
    return replace(stage, container=container)
