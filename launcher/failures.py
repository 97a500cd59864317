"""Why a stage failed, in the words of whoever knows best."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from launcher.core import errors
from launcher.core.errors import RdtlError
from launcher.core.plan import Stage
from launcher.core.runs import RunDir
from launcher.markers import Markers

CONTINUES = "correct the cause and run the same command again: it continues from here"
COPIED = (
    "a mended program: the same command with another --name, since this run keeps its copy; any "
    "other cause: rdtl runs resume {}"
)


def telling_index(markers: Markers, stage: str, missing: list[int], attempt: int) -> int:
    """Of the ``missing`` tasks one that says why it failed, else the first."""
    for index in missing:
        marks = markers.marks(stage, index).get(attempt)
        if marks and marks.failure():
            return index
    return missing[0]


def explain(
    run: RunDir, stage: Stage, index: int, attempt: int, ended: Callable[[], str]
) -> RdtlError:
    """The error that task ``index`` left, or one with its exit code and the end of its log.

    ``ended`` says how the scheduler saw the end; it is asked only when the task left
    no trace, or was told to end.
    """
    event = run.ledger.failure(stage.name, index, attempt) or {}
    if event.get("error"):
        return errors.from_dict(event["error"])
    saved = event.get("exit_code") in (errors.EXIT_REQUEUE, errors.EXIT_SAVED)
    untold = not event or event.get("exit_code") == errors.EXIT_TERMINATED
    by_us = untold and run.ledger.read(f"cancelled.{stage.name}.a{attempt}")
    words = ended() if untold and not by_us else ""
    # Slurm ends the container while its program saves, and kills what takes too long: then only
    # Slurm can say that it was cancelled.
    if saved or by_us or (words and all(w.startswith("CANCELLED") for w in words.split(", "))):
        return RdtlError(
            "RDTL-S036",
            f"stage {stage.name} was ended from outside, task {index} of {stage.array}",
            why="it was cancelled, or its time was over and it may not be started again",
            fix="what is finished or saved is kept: run the same command again, and it continues",
        )
    log = run.log(stage.name, attempt, index, 0)
    tail = log.read_text(errors="replace").strip().splitlines()[-8:] if log.exists() else []
    return RdtlError(
        "RDTL-S033",
        f"stage {stage.name} failed ({_how(event, words)}), task {index} of {stage.array}",
        where=f"{log}" + "".join(f"\n          | {line}" for line in tail),
        why="later stages need what it makes; what is finished is kept",
        fix=COPIED.format(shlex.quote(str(run.root))) if run.work.exists() else CONTINUES,
    )


def _how(event: dict[str, Any], words: str) -> str:
    if "exit_code" in event:
        return f"exit code {event['exit_code']}"
    return f"{words} according to Slurm" if words else "no trace of its end"
