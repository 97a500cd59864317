"""What can be said of the checkpoint that a training begins with, before anything is sent."""

from __future__ import annotations

from pathlib import Path

from launcher.core.runs import RunDir
from launcher.schema import RunConfig
from rdt.spec import card as cards


def require_contract(config: RunConfig) -> None:
    """Refuse a checkpoint here whose card names another contract than the data's.

    The job looks again, also at checkpoints that are not here. Raises RefusedError
    RDTL-T012, and what :func:`rdt.spec.card.read` raises for a card that is none.
    """
    train = config.train
    if train is None or train.checkpoint is None:
        return
    named = Path(train.checkpoint)
    folder = named.parent if named.is_file() else named
    for place in (folder, RunDir(folder).policy):
        if (place / cards.FILE).is_file():
            found = cards.read(place).contract["name"]
            cards.require_contract(found, config.dataset.contract, train.checkpoint)
