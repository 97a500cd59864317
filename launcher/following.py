"""The checkpoints of a training, one after another while it goes on.

Training removes old checkpoints. What is followed is therefore linked aside, into
``RUN/followed``, before it is named to anybody: the same files, no second copy.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from launcher import status
from launcher.core import files
from launcher.core.errors import UsageError
from launcher.core.runs import RunDir
from rdt.spec import card as cards

POLL_S = 20.0


def checkpoints(root: Path, poll_s: float = POLL_S) -> Iterator[Path]:
    """The policy directory of each complete checkpoint, oldest first, and at the end of the
    training that of its last step, which is no checkpoint.

    Raises UsageError RDTL-U014 when ``root`` is no run, RDTL-E072 when its training has ended
    and left nothing to follow.
    """
    run, seen = RunDir(root.resolve()), 0
    known: set[str] = set()
    while True:
        live = status.of(run, fresh=True).live  # before the look: what comes last is not missed
        new = [step for step in _keep(run) if step.name not in known]
        for step in new:
            known.add(step.name)
            yield step
        seen += len(new)
        if not new and not live:
            break
        if not new:
            time.sleep(poll_s)
    if (run.policy / cards.FILE).is_file():
        yield run.policy
    elif not seen:
        raise UsageError(
            "RDTL-E072",
            "there is no checkpoint to follow",
            where=f"{run.checkpoints}: no step_*/policy/{cards.FILE}, and nothing of the run lives",
            why="a training that has ended leaves no new ones",
            fix="start the training, or name its policy: rdtl sweep CONFIG --checkpoint RUN",
        )


def _keep(run: RunDir) -> list[Path]:
    """Link what is new aside; everything that lies there, oldest first."""
    aside = run.root / "followed"
    for step in sorted(run.checkpoints.glob("step_*")):
        if (step / "policy" / cards.FILE).is_file() and not (aside / step.name).exists():
            _link(step / "policy", aside / step.name)
    return sorted(aside.glob("step_*"))


def _link(source: Path, target: Path) -> None:
    temporary = target.with_name(f".tmp-{target.name}-{os.getpid()}")
    try:
        shutil.copytree(source, temporary, copy_function=os.link)
    except (FileNotFoundError, shutil.Error):  # the training removed it meanwhile
        shutil.rmtree(temporary, ignore_errors=True)
        return
    files.rename_directory(temporary, target)
