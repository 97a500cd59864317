"""Checkpoints that are complete because they exist.

All ranks write into a directory with a temporary name; rank 0 lists every file
with size and digest, forces all to disk and renames the directory to
``step_NNNNNN``. A kill at any moment leaves the previous checkpoints untouched.
What does not load is an error, never a silent fresh start (RDTL-T013).
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from launcher.core import files
from launcher.core.errors import RdtlError, RefusedError
from launcher.core.job import Job
from rdt.training import engine as distributed
from rdt.training.ema import Ema
from rdt.training.engine import Engine

STATE, EMA, TAG = "state.json", "ema.safetensors", "deepspeed"


def steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in ``folder``, ascending."""
    found = (re.fullmatch(r"step_(\d+)", path.name) for path in folder.glob("step_*"))
    return sorted(int(match[1]) for match in found if match)


def place(folder: Path, step: int) -> Path:
    """Directory of the checkpoint after ``step`` optimizer steps."""
    return folder / f"step_{step:06d}"


def clean(folder: Path) -> None:
    """Remove what killed attempts left behind: never anything that has a final name."""
    for path in folder.glob(".tmp-*"):
        shutil.rmtree(path, ignore_errors=True)  # another attempt may be removing it too


def save(job: Job, engine: Engine, ema: Ema | None, step: int, identity: dict[str, Any]) -> None:
    """Save the state after ``step`` optimizer steps; every rank calls this.

    ``ema`` is rank 0's. Raises RdtlError RDTL-S011 when a newer attempt of this stage
    exists: then nothing is published.
    """
    folder = job.run.checkpoints
    temporary = folder / f".tmp-step_{step:06d}-{job.round}"
    if ema is not None:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    distributed.barrier()
    engine.deepspeed.save_checkpoint(str(temporary), tag=TAG, save_latest=False)
    if ema is not None:
        save_file(ema.state(), temporary / EMA)
    distributed.barrier()
    fenced = distributed.agree(ema is not None and job.fenced())
    if fenced:
        raise RdtlError(
            "RDTL-S011",
            f"a newer attempt of {job.stage} has taken over; this one stops",
            where=f"attempt {job.round}, step {step}",
            why="two attempts must not publish into one run",
            fix="nothing: follow the newer attempt",
        )
    if ema is not None:
        _publish(temporary, place(folder, step), {**identity, "step": step, "ema": ema.calls})
        _prune(folder, job.config["train"]["keep_checkpoints"])
    distributed.barrier()


def _publish(temporary: Path, final: Path, state: dict[str, Any]) -> None:
    paths = sorted(path for path in temporary.rglob("*") if path.is_file())
    listed = {str(path.relative_to(temporary)): _fingerprint(path) for path in paths}
    files.write_json(temporary / STATE, {**state, "files": listed})
    for path in paths:
        files.sync_file(path)
    for path in temporary.rglob("*"):
        if path.is_dir():
            files.sync_directory(path)
    files.rename_directory(temporary, final)


def _prune(folder: Path, keep: int) -> None:
    for step in steps(folder)[:-keep]:
        doomed = folder / f".tmp-old-step_{step:06d}"  # renamed first: never half a checkpoint
        shutil.rmtree(doomed, ignore_errors=True)
        place(folder, step).rename(doomed)
        shutil.rmtree(doomed)


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def resume(job: Job, engine: Engine, ema: Ema | None, identity: dict[str, Any]) -> int:
    """Load the newest checkpoint, if there is one; returns the steps already done.

    Every rank calls this. Raises RdtlError RDTL-T011 or T013 when it is damaged,
    RefusedError RDTL-T012 when it belongs to another run, RDTL-T015 when the number of
    ranks changed.
    """
    step = distributed.agree(max(steps(job.run.checkpoints), default=0))
    if step == 0:
        return 0
    path = place(job.run.checkpoints, step)
    state = verify(path) if ema is not None else files.read_json(path / STATE)
    distributed.barrier()
    require_identity(path, state, identity)
    try:
        # Inside, DeepSpeed unpickles its own files; the digests above are of what this run wrote.
        loaded, _ = engine.deepspeed.load_checkpoint(str(path), tag=TAG)
        if ema is not None:
            ema.load(load_file(path / EMA), state["ema"])
    except Exception as error:
        raise _unreadable(path, repr(error)) from error
    if loaded is None:
        raise _unreadable(path, "DeepSpeed found no state in it")
    return int(step)


def verify(path: Path) -> dict[str, Any]:
    """The state of a checkpoint after comparing every file with its size and digest."""
    try:
        state: dict[str, Any] = files.read_json(path / STATE)
    except (OSError, ValueError) as error:
        raise _unreadable(path / STATE, repr(error)) from error
    for name, expected in state["files"].items():
        if not (path / name).is_file():
            raise _unreadable(path / name, "the file is missing")
        found = _fingerprint(path / name)
        if found != expected:
            raise _unreadable(
                path / name, f"{found['bytes']} of {expected['bytes']} bytes, or other content"
            )
    return state


def require_identity(path: Path, state: dict[str, Any], identity: dict[str, Any]) -> None:
    """Refuse to continue a checkpoint that was made under other settings."""
    for key, expected in identity.items():
        if state.get(key) == expected:
            continue
        ranks = key == "ranks"
        raise RefusedError(
            "RDTL-T015" if ranks else "RDTL-T012",
            f"the checkpoint was made with another {key}",
            where=f"{path / STATE}: {key} = {state.get(key)!r}, now {expected!r}",
            why="the optimizer state is divided among the ranks"
            if ranks
            else "the run would go on as another experiment",
            fix="use the same number of ranks, or start a new run"
            if ranks
            else "restore the configuration and data, or start a new run",
        )


def _unreadable(path: Path, why: str) -> RdtlError:
    return RdtlError(
        "RDTL-T013",
        "a checkpoint does not load",
        where=f"{path}: {why}",
        why="starting afresh without saying so would throw the training away",
        fix=f"remove {path if path.is_dir() else path.parent} to go on from the one before it",
    )
