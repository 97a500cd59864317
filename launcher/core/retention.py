"""Which checkpoints of a run stay: training prunes by this, uploads delete by this.

::

    RUN/checkpoints/step_NNNNNN/               a whole checkpoint
    RUN/checkpoints/scores/step_N.METRIC.json  what was measured of it
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from launcher.core import files

BETTER = {"validation_loss": min, "success": max}
"""Metrics by which the best checkpoint can be kept, and which end is better."""


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in ``folder``, ascending."""
    found = (re.fullmatch(r"step_(\d+)", path.name) for path in folder.glob("step_*"))
    return sorted(int(match[1]) for match in found if match)


def place(folder: Path, step: int) -> Path:
    """Directory of the checkpoint after ``step`` optimizer steps."""
    return folder / f"step_{step:06d}"


def record_score(folder: Path, step: int, metric: str, value: float) -> None:
    """Record what was measured of a checkpoint, once: ``metric`` is a key of :data:`BETTER`."""
    files.publish_once(
        _score(folder, step, metric), {"step": step, "metric": metric, "value": value}
    )


def best(folder: Path, metric: str | None) -> int | None:
    """The step, among the checkpoints that are there, with the best ``metric``, or None."""
    if metric is None:
        return None
    paths = ((step, _score(folder, step, metric)) for step in steps(folder))
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


def spare(folder: Path, keep_every: int | None, metric: str | None) -> list[int]:
    """The steps whose checkpoints need not lie here once they lie elsewhere.

    The newest stays, for a restart, and what training would keep for ever; with ``metric`` also
    what has not been measured yet, for it may turn out to be the best.
    """
    gone = superfluous(steps(folder), 1, keep_every, best(folder, metric))
    return [step for step in gone if not metric or _score(folder, step, metric).is_file()]


def discard(path: Path) -> None:
    """Remove a checkpoint; it loses its name first, so there is never half of one.

    Training and an upload may both want it gone: who comes second finds nothing to do.
    """
    doomed = path.with_name(f".tmp-old-{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    with suppress(FileNotFoundError):
        path.rename(doomed)
    # What a network file system still holds open is no reason to end a training.
    shutil.rmtree(doomed, ignore_errors=True)


def _score(folder: Path, step: int, metric: str) -> Path:
    return folder / "scores" / f"step_{step:06d}.{metric}.json"
