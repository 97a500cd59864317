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
FETCH = "stage"
"""The stage that brings what is named by URI; what a section adds is brought by another one."""
STAGED = ("assets", "asset_cache", "node_local")
"""Keys of a plan's configuration that are there when anything is named by URI."""


def extended(old: Plan, new: Plan) -> Plan | None:
    """``old`` with the stages that only ``new`` has, or None when anything else differs."""
    if not _only_adds(old.config, new.config):
        return None
    known = {stage.name: stage for stage in old.stages}
    offered = {stage.name: stage for stage in new.stages}
    lasting = [name for name in known if base(name) != FETCH]
    if any(
        name not in offered or _without_place(known[name]) != _without_place(offered[name])
        for name in lasting
    ):
        return None
    image, fetching = _image(old), _fetching(old, new)
    added = [in_image(s, image) for s in new.stages if s.name not in known and s.name != FETCH]
    if not added:
        return None
    waiting = tuple(_waiting(stage, fetching) for stage in added)
    return Plan(old.name, old.site, (*old.stages, *fetching, *waiting), new.config)


def recut(old: Plan, new: Plan) -> Plan | None:
    """``old`` with its episodes cut as in ``new``, or None when that is not all that differs."""
    if not _only_cut(old.config, new.config):
        return None
    number = 1 + max(_number(stage.name) for stage in old.stages)
    names = {name: f"{name}-{number}" for name in CUT}
    kept = {stage.name: stage for stage in old.stages if base(stage.name) not in CUT}
    image = _image(old)
    offered = {stage.name for stage in new.stages}
    fetching = tuple(stage for name, stage in kept.items() if name not in offered)
    stages = tuple(
        kept.get(stage.name)
        or replace(
            in_image(stage, image),
            name=names.get(stage.name, stage.name),
            needs=tuple(names.get(parent, parent) for parent in stage.needs),
        )
        for stage in new.stages
    )
    stages = tuple(s if s.name in kept else _waiting(s, fetching) for s in stages)
    return Plan(old.name, old.site, (*fetching, *stages), new.config)


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
    assets = new.get("assets", [])
    if any(asset not in assets for asset in old.get("assets", [])):
        return False
    # The first asset of a run brings these keys with it; later ones find them as they are.
    free = {*added, *(STAGED if "assets" not in old else ("assets",))}
    same = {key: value for key, value in old.items() if key not in free}
    return bool(added) and same == {key: value for key, value in new.items() if key not in free}


def _fetching(old: Plan, new: Plan) -> tuple[Stage, ...]:
    """The stage for what ``new`` names by URI, if there is any; it skips what is still there.

    What was brought for a run that is done may have been cleaned away since.
    """
    if not new.config.get("assets"):
        return ()
    numbers = [_number(stage.name) for stage in old.stages if base(stage.name) == FETCH]
    name = f"{FETCH}-{1 + max(numbers)}" if numbers else FETCH
    return (replace(new.stage(FETCH), name=name),)


def _waiting(stage: Stage, others: tuple[Stage, ...]) -> Stage:
    """``stage``, begun when the others have ended well, too."""
    needs = [name for name in stage.needs if not others or name != FETCH]
    return replace(stage, needs=(*needs, *(one.name for one in others)))


def _without_place(stage: Stage) -> Stage:
    """What must not change; what it waits for may be fetched by another stage."""
    needs = tuple(name for name in stage.needs if base(name) != FETCH)
    return replace(stage, container=None, argv=stage.argv[1:], needs=needs)


def _image(plan: Plan) -> Container | None:
    return next((stage.container for stage in plan.stages if stage.container), None)


def in_image(stage: Stage, image: Container | None) -> Stage:
    """A new stage in the very image of the old ones, which may have been built anew meanwhile."""
    if stage.container is None or image is None:
        return stage
    container = replace(image, binds=stage.container.binds, passed=stage.container.passed)
    return replace(stage, container=container)
