"""How much disk checkpoints take: asked before the first step, and said when it is too late."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torch import nn

from launcher.core import retention
from launcher.core.errors import RdtlError, RefusedError

MASTERS_AND_MOMENTS = 12
MOMENTS = 8
AVERAGE = 4
"""Bytes for each trained number: float32 master weights and AdamW's two moments; the EMA."""


def expected_bytes(module: nn.Module, train: dict[str, Any]) -> int:
    """Size of one checkpoint from the sizes of the parameters, before there is one."""
    numbers = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in module.parameters()]
    trained = sum(n for n, trains in numbers if trains)
    frozen = sum(n for n, trains in numbers if not trains)
    weight = 2 if train["dtype"] == "bf16" else 4
    shared = 0 if train["zero_stage"] == 3 else trained  # with stage 3 the masters are all
    optimizer = MASTERS_AND_MOMENTS if train["zero_stage"] else MOMENTS
    return weight * (shared + frozen) + optimizer * trained + AVERAGE * (trained + frozen)


def most_at_once(train: dict[str, Any], total: int | None) -> int:
    """How many checkpoints can be there at one time, with the one that is being written."""
    extra = 1 if train["keep_best"] else 0
    if train["keep_every"] and total:
        extra += total // train["keep_every"]
    written = total // train["checkpoint_every"] if total else None
    kept = train["keep_checkpoints"] + extra + 1
    return kept if written is None else min(kept, written)


def require_room(folder: Path, each: int, train: dict[str, Any], total: int | None) -> str:
    """Refuse to begin what must end with a full disk; says what will be there otherwise.

    ``each`` is the size of a checkpoint in bytes. Quotas cannot be seen from here. Raises
    RefusedError RDTL-G001.
    """
    count = most_at_once(train, total)
    there = sum(_size(retention.place(folder, s)) for s in retention.steps(folder))
    needed = max(0, count * each - there)
    free = shutil.disk_usage(folder).free
    if needed <= free:
        return f"{count} of {gigabytes(each)} at one time, {gigabytes(free)} are free"
    raise RefusedError(
        "RDTL-G001",
        f"the checkpoints of this run do not fit on the disk: {gigabytes(needed - free)} missing",
        where=f"{folder}: {count} of {gigabytes(each)} at one time, {gigabytes(there)} are there, "
        f"{gigabytes(free)} are free",
        why="the run would end with a full disk after hours of work",
        fix=f"free {gigabytes(needed - free)}, keep fewer (train.keep_checkpoints, keep_every), "
        "or put the run on another disk",
    )


def full_disk(folder: Path, needed: int) -> RdtlError:
    """The error for a checkpoint of ``needed`` bytes that the disk did not take."""
    free = shutil.disk_usage(folder).free
    kept = ", ".join(f"step {step}" for step in retention.steps(folder)) or "none yet"
    return RdtlError(
        "RDTL-G009",
        f"the disk is full: {gigabytes(max(0, needed - free))} missing for a checkpoint",
        where=f"{folder}: it takes {gigabytes(needed)}, {gigabytes(free)} are free "
        "(or a quota is used up)",
        why=f"the checkpoints that were whole before are kept: {kept}",
        fix="free some space and run the same command again; it continues where it stopped",
    )


def gigabytes(count: int) -> str:
    """Bytes for people: 22.1 GB, or 3.4 MB where that is less than 0.1 GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
