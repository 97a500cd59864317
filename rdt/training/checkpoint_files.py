"""Checkpoints as directories: names, digests, what is complete and what goes.

::

    RUN/checkpoints/step_NNNNNN/state.json     what it is, and size and digest of every file
    RUN/checkpoints/step_NNNNNN/deepspeed/     DeepSpeed's files, one or two for each rank
    RUN/checkpoints/step_NNNNNN/policy/        the averaged weights with config.json and card
    RUN/checkpoints/scores/step_N.METRIC.json  what was measured of a checkpoint
    RUN/checkpoints/damaged_step_NNNNNN_*/     passed over at a resume, kept for looking at

A directory gets its ``step_`` name last, so one that has it was complete when it was made.
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from launcher.core import files

STATE, TAG, POLICY, ADAPTER = "state.json", "deepspeed", "policy", "adapter"

BETTER = {"validation_loss": min, "success": max}
"""Metrics by which the best checkpoint can be kept, and which end is better."""


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in ``folder``, ascending."""
    found = (re.fullmatch(r"step_(\d+)", path.name) for path in folder.glob("step_*"))
    return sorted(int(match[1]) for match in found if match)


def place(folder: Path, step: int) -> Path:
    """Directory of the checkpoint after ``step`` optimizer steps."""
    return folder / f"step_{step:06d}"


def clean(folder: Path) -> None:
    """Remove what killed attempts left behind: never anything that has a final name."""
    for path in folder.glob(".tmp-*"):
        shutil.rmtree(path, ignore_errors=True)  # another attempt may be removing it too


def fingerprint(path: Path) -> dict[str, Any]:
    """Size in bytes and SHA-256 of a file."""
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


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


def record_score(folder: Path, step: int, metric: str, value: float) -> None:
    """Record what was measured of a checkpoint, once: ``metric`` is a key of :data:`BETTER`."""
    scores = folder / "scores" / f"step_{step:06d}.{metric}.json"
    files.publish_once(scores, {"step": step, "metric": metric, "value": value})


def best(folder: Path, metric: str | None) -> int | None:
    """The step, among the checkpoints that are there, with the best ``metric``, or None."""
    if metric is None:
        return None
    paths = ((step, folder / "scores" / f"step_{step:06d}.{metric}.json") for step in steps(folder))
    scores = {step: files.read_json(path)["value"] for step, path in paths if path.is_file()}
    finite = {step: value for step, value in scores.items() if math.isfinite(value)}
    return BETTER[metric](finite, key=finite.__getitem__) if finite else None


def superfluous(
    there: Sequence[int], keep: int, keep_every: int | None, best: int | None
) -> list[int]:
    """The steps whose checkpoints may go: the only decision about that, and pure.

    The ``keep`` newest stay, every multiple of ``keep_every`` steps, and the best one.
    """
    kept = {*sorted(there)[-keep:], best}
    return [
        step
        for step in sorted(there)
        if step not in kept and not (keep_every and step % keep_every == 0)
    ]


def prune(folder: Path, train: dict[str, Any]) -> None:
    """Remove what :func:`superfluous` names by the settings of the ``train`` section."""
    top = best(folder, train["keep_best"])
    there = steps(folder)
    for step in superfluous(there, train["keep_checkpoints"], train["keep_every"], top):
        doomed = folder / f".tmp-old-step_{step:06d}"  # renamed first: never half a checkpoint
        shutil.rmtree(doomed, ignore_errors=True)
        place(folder, step).rename(doomed)
        # What a network file system still holds open is no reason to end a training.
        shutil.rmtree(doomed, ignore_errors=True)
