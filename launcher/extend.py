"""A plan only ever grows: sections that a run's configuration did not have may be added later.

A pipeline that trained yesterday evaluates today: the stages that exist stay as they
are, new ones join them, in the image of the old ones. Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from launcher.core.plan import Plan, Stage
from launcher.core.runtimes import Container

SECTIONS = ("train", "evaluate")


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
    image = next((stage.container for stage in old.stages if stage.container), None)
    stages = tuple(known.get(stage.name) or _in_image(stage, image) for stage in new.stages)
    if len(stages) == len(old.stages):
        return None
    return Plan(old.name, old.site, stages, new.config)


def _only_adds(old: dict[str, Any], new: dict[str, Any]) -> bool:
    added = {key for key in SECTIONS if old.get(key) is None and new.get(key) is not None}
    same = {key: value for key, value in old.items() if key not in added}
    return bool(added) and same == {key: value for key, value in new.items() if key not in added}


def _without_place(stage: Stage) -> Stage:
    return replace(stage, container=None, argv=stage.argv[1:])


def _in_image(stage: Stage, image: Container | None) -> Stage:
    """A new stage in the very image of the old ones, which may have been built anew meanwhile."""
    if stage.container is None or image is None:
        return stage
    container = replace(image, binds=stage.container.binds, passed=stage.container.passed)
    return replace(stage, container=container)
