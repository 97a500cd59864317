"""A second run of exactly the same thing: same code, same image, same configuration.

A run belongs to the user who made it. Whoever else wants to repeat or continue it
gets a *child*: an own run directory whose lock names the parent. What cannot be
made the same again is refused, not replaced.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher import create, owner, snapshot
from launcher.core import files, plan
from launcher.core.errors import RefusedError
from launcher.core.plan import Plan
from launcher.core.runs import RunDir
from launcher.staging.locks import held

CARRIED = ("code", "work")
"""Directories of a run that hold what ran: our packages, and the user's tree of `rdtl run`."""


def require_own(run: RunDir, doing: str) -> None:
    """Raise RefusedError RDTL-S035 when ``run`` belongs to another user (root included)."""
    uid = run.root.stat().st_uid
    if uid == os.geteuid():
        return
    raise RefusedError(
        "RDTL-S035",
        f"this run belongs to user {owner.account(uid)}: you cannot {doing} it",
        where=str(run.root),
        why="two users who write into one run directory destroy each other's work",
        fix=f"rdtl runs resubmit {run.root} --as-new NAME makes the same run in your --runs-dir",
    )


def make(parent: RunDir, child: RunDir) -> Plan:
    """Create ``child`` as a copy of what ``parent`` is: code, plan, configuration, lock.

    Under the lock of whoever makes a run; the plan is published last, and what lies in a directory
    without one is copied anew (:mod:`launcher.create`). Raises RefusedError RDTL-S040 when the
    same thing cannot run any more, or another run has the name.
    """
    origin = {"run": str(parent.root), "lock_sha256": files.sha256(parent.lock)}
    if not child.plan.exists():
        the_plan = plan.read(parent.plan)
        _require_unchanged(parent, the_plan, files.read_json(parent.lock))
        with held(child.creating, lambda words: None) as lock_state:
            if not child.plan.exists():
                _make(parent, child, the_plan, origin, alone=lock_state == "mine")
    _require_same_parent(child, origin)
    return plan.read(child.plan)


def _make(
    parent: RunDir, child: RunDir, the_plan: Plan, origin: dict[str, str], *, alone: bool
) -> None:
    for name in CARRIED:
        _copy(parent.root / name, child.root / name, lambda: alone and not child.plan.exists())
    if child.plan.exists():  # by another node, which sees nothing of our lock
        return
    _measured_length(parent, child)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    lock = files.read_json(parent.lock)
    files.write_json(child.lock, {**lock, "created": created, "parent": origin})
    files.write_text(child.config, parent.config.read_text(encoding="utf-8"))
    if parent.site.exists():
        files.write_text(child.site, parent.site.read_text(encoding="utf-8"))
    files.publish_once(child.plan, relocate(the_plan, parent.root, child.root).to_dict())


def relocate(the_plan: Plan, old: Path, new: Path) -> Plan:
    """``the_plan`` with every path below ``old`` moved below ``new``.

    Programs of this installation start with the own interpreter: another user's may be
    unreadable, and :func:`make` has checked that the packages are the same.
    """
    inside = re.compile(re.escape(str(old)) + r"(?=[/:]|$)")

    def moved(value: Any) -> Any:
        if isinstance(value, str):
            return inside.sub(lambda _: str(new), value)
        if isinstance(value, list | tuple):
            return [moved(item) for item in value]
        if isinstance(value, dict):
            return {key: moved(item) for key, item in value.items()}
        return value

    found = plan.from_dict(moved(the_plan.to_dict()))
    own = tuple(
        replace(stage, argv=(sys.executable, *stage.argv[1:]))
        if stage.own_code and stage.container is None and not stage.activate
        else stage
        for stage in found.stages
    )
    return replace(found, stages=own)


def _require_unchanged(parent: RunDir, the_plan: Plan, lock: dict[str, Any]) -> None:
    changed = []
    if snapshot.code_digest(parent.code) != lock["code_sha256"]:
        changed.append(f"{parent.code}: the code is not what ran")
    for container in {
        s.container.image: s.container for s in the_plan.stages if s.container
    }.values():
        if container.runtime == "apptainer" and not Path(container.image).exists():
            changed.append(f"{container.image}: the image is gone")
    if lock["image"] is None:
        now = {name: create.version(name) for name in lock["packages"]}
        changed += [
            f"{name}: {then} then, {now[name] or 'not installed'} now"
            for name, then in lock["packages"].items()
            if now[name] != then
        ]
    if changed:
        raise RefusedError(
            "RDTL-S040",
            "the same run cannot be made again",
            where="; ".join(changed[:4]),
            why="a run that only looks the same would be compared with the first one",
            fix="put that back, or start a new run with the command of run.yaml's configuration",
        )


def _require_same_parent(child: RunDir, origin: dict[str, str]) -> None:
    found = files.read_json(child.lock).get("parent")
    if found != origin:
        raise RefusedError(
            "RDTL-S040",
            "there is another run with this name",
            where=str(child.root),
            why=f"its parent is {found['run'] if found else 'none'}, not {origin['run']}",
            fix="--as-new OTHER",
        )


def _copy(source: Path, target: Path, gives_way: Callable[[], bool]) -> None:
    if not source.is_dir():
        return
    left_out = shutil.ignore_patterns("__pycache__")
    with contextlib.suppress(FileExistsError), files.whole_folder(target) as temporary:
        shutil.copytree(source, temporary, symlinks=True, ignore=left_out, dirs_exist_ok=True)
        snapshot.replace(target, gives_way)


def _measured_length(parent: RunDir, child: RunDir) -> None:
    """Minutes were turned into steps once; measured again they would be other steps."""
    event = parent.ledger.read("train.length")
    if event:
        child.ledger.publish("train.length", **{k: v for k, v in event.items() if k != "at"})
