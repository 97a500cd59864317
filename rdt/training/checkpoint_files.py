"""Checkpoints as directories: names, digests, what is complete and what goes.

::

    RUN/checkpoints/step_NNNNNN/state.json     what it is, and size and digest of every file
    RUN/checkpoints/step_NNNNNN/deepspeed/     DeepSpeed's files, one or two for each rank
    RUN/checkpoints/step_NNNNNN/policy/        the averaged weights with config.json and card
    RUN/checkpoints/damaged_step_NNNNNN_*/     passed over at a resume, kept for looking at

A directory gets its ``step_`` name last, so one that has it was complete when it was made.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from launcher.core import files, retention

STATE, TAG, POLICY, ADAPTER = "state.json", "deepspeed", "policy", "adapter"


def clean(folder: Path) -> None:
    """Remove what killed attempts left behind: never anything that has a final name."""
    for path in folder.glob(".tmp-*"):
        shutil.rmtree(path, ignore_errors=True)  # another attempt may be removing it too


def fingerprint(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file."""
    return {"bytes": path.stat().st_size, "sha256": files.sha256(path)}


def fingerprints(folder: Path, paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Fingerprints by name inside ``folder``."""
    return {str(path.relative_to(folder)): fingerprint(path) for path in paths}


def publish(
    temporary: Path, final: Path, state: dict[str, Any], listed: dict[str, dict[str, Any]]
) -> None:
    """Give the directory its name; its files, named in ``listed``, are on disk already."""
    files.write_json(temporary / STATE, {**state, "files": listed})
    for path in temporary.rglob("*"):
        if path.is_dir():
            files.sync_directory(path)
    files.rename_directory(temporary, final)


def damage(path: Path, share: int = 0, of: int = 1) -> list[str]:
    """What is wrong with a checkpoint, empty when it is as it was published.

    Of several ranks each compares its ``share`` of the files with size and digest.
    """
    try:
        listed = files.read_json(path / STATE)["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{path / STATE}: {error!r}"]
    found = []
    for name in sorted(listed)[share::of]:
        if not (path / name).is_file():
            found.append(f"{path / name}: the file is missing")
        elif (path / name).stat().st_size != listed[name]["bytes"]:
            size = (path / name).stat().st_size
            found.append(f"{path / name}: {size} of {listed[name]['bytes']} bytes")
        elif fingerprint(path / name) != listed[name]:
            found.append(f"{path / name}: other content than was written")
    return found


def set_aside(path: Path, round_: str) -> Path:
    """Take a damaged checkpoint its name, so that the step can be published again."""
    aside = path.with_name(f"damaged_{path.name}_{round_}")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    files.sync_directory(path.parent)
    return aside


def prune(folder: Path, train: dict[str, Any]) -> None:
    """Remove what :func:`retention.superfluous` names by the settings of the ``train`` section."""
    top = retention.best(folder, train["keep_best"])
    there = retention.steps(folder)
    keep, every = train["keep_checkpoints"], train["keep_every"]
    for step in retention.superfluous(there, keep, every, top):
        retention.discard(retention.place(folder, step))
