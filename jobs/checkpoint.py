"""``python -m jobs.checkpoint inspect|adopt|export …``: `rdtl checkpoint` where torch is.

The last line of stdout is ``{"result": …}`` or ``{"error": {...}}``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from jobs.answer import answer
from rdt.checkpoint import adopting, describing, exporting, fit
from rdt.checkpoint.opening import Checkpoint, Wanted, chosen, open_checkpoint
from rdt.spec import card as cards
from rdt.spec.contract import CONTRACTS


def inspect(source: str, weights: str) -> dict[str, Any]:
    """What the checkpoint is, and what is wrong with it."""
    return describing.describe(open_checkpoint(source, cast(Wanted, weights)))


def adopt(source: str, weights: str, contract: str) -> dict[str, Any]:
    """Write a card for foreign weights; returns where, and the card."""
    checkpoint = _whole(source, weights)
    card = adopting.adopt(checkpoint, CONTRACTS[contract])
    return {"path": str(checkpoint.origin.path.parent / cards.FILE), "card": asdict(card)}


def export(source: str, weights: str, folder: str) -> dict[str, Any]:
    """Write the reference's layout into a new folder."""
    checkpoint = _whole(source, weights)
    exporting.export(checkpoint, Path(folder))
    written = {path.name: path.stat().st_size for path in sorted(Path(folder).iterdir())}
    return {"folder": folder, "source": str(checkpoint.origin.path), "bytes": written}


def choose(source: str, weights: str) -> dict[str, Any]:
    """Which copy an evaluation takes and what to be warned of; RDTL-T012 without a card."""
    copy, card, notes = chosen(source, cast(Wanted, weights))
    found = {"path": str(copy.path), "weights": card.weights, "dtype": card.dtype}
    return {**found, "horizon": card.horizon, "findings": [asdict(note) for note in notes]}


def _whole(source: str, weights: str) -> Checkpoint:
    checkpoint = open_checkpoint(source, cast(Wanted, weights))
    fit.require(checkpoint, fit.compare(checkpoint))
    for note in checkpoint.notes:
        if note.severity == "warning":
            print(f"{note.severity} {note.code}: {note.what}", file=sys.stderr)
    return checkpoint


VERBS: dict[str, Callable[..., dict[str, Any]]] = {
    "inspect": inspect,
    "choose": choose,
    "adopt": adopt,
    "export": export,
}


def main(argv: list[str]) -> int:
    """Run one verb."""
    return answer(lambda: VERBS[argv[0]](*argv[1:]), f"checkpoint {argv[0]} was at work")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
