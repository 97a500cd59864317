"""Heavy checks: ``python -m jobs.check NAME [ARGUMENT…]`` prints one JSON document.

The last line of stdout is ``{"findings": [...]}`` or ``{"error": {...}}``; the simulator's own
chatter may come before it. ``python -m jobs.check each '[[NAME, ARGUMENT…], …]'`` runs several in
one process and prints such a line for each, with ``{"unknown": "…"}`` for one that broke and
``{"skipped": "…"}`` for one whose libraries are not here.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.core.checks import Finding
from launcher.core.errors import RdtlError, file_system

if TYPE_CHECKING:
    from rdt.data.declared import DeclaredSet
    from rdt.data.store import EpisodeStore


def data(request: str) -> list[Finding]:
    """Read a data set as training would; ``request`` is a JSON object.

    Its `training`, a configuration, says which one learns from this set alone.
    """
    from rdt.data.checks import verify_opened
    from rdt.data.declared import DeclaredSet
    from rdt.spec.contract import CONTRACTS

    asked = json.loads(request)
    statistics = Path(asked["statistics"]) if asked["statistics"] else None
    try:
        contract = CONTRACTS[asked["contract"]]
        source = DeclaredSet.of(asked)
        store = source.open()
        findings = verify_opened(store, source, contract, statistics, asked["name"])
        training = asked.get("training")
        return findings + (_enough(training, source, store) if training else [])
    except OSError as error:
        raise file_system(error, "a data set was being read") from error


def _enough(training: dict[str, Any], source: DeclaredSet, store: EpisodeStore) -> list[Finding]:
    """What RDTL-T062 and T064 would refuse, where a look at a few demonstrations is one at all."""
    from rdt.training import windows

    looked_at = Counter(episode.task for episode in store.episodes)
    if source.at_most and max(looked_at.values()) >= source.at_most:
        return []  # there may be more
    try:
        windows.chosen(training, [source], [store])
    except RdtlError as error:
        return [Finding.of(error)]
    return []


def checkpoint(request: str) -> list[Finding]:
    """A checkpoint by its headers, its card and the digest of its weights; reads no numbers.

    ``request``: `source`, `weights`, the `contract` that its card must have and the number of
    actions `executed` of each chunk, where there are such.
    """
    from rdt.checkpoint import describing, fit
    from rdt.checkpoint.opening import open_checkpoint
    from rdt.spec import card as cards
    from rdt.spec import chunks

    asked = json.loads(request)
    found = open_checkpoint(asked["source"], asked["weights"])
    path, card = found.origin.path, found.card
    findings = [
        *found.notes,
        describing.fits(found, fit.compare(found)),
        describing.carded(found),
    ]
    if card and asked["contract"]:
        cards.require_contract(card.contract["name"], asked["contract"], str(path))
    if card and asked["executed"]:
        findings += chunks.replanning(asked["executed"], card.horizon, str(path))
    return findings


def simulator() -> list[Finding]:
    """One golden frame and one settled scene: a few seconds, or known from before."""
    from rdt.sim.probed import findings

    return findings()


CHECKS: dict[str, Callable[..., list[Finding]]] = {
    "data": data,
    "checkpoint": checkpoint,
    "simulator": simulator,
}


def answer(name: str, arguments: list[str]) -> dict[str, Any]:
    """The findings of one check, or the error that it raised."""
    try:
        findings = CHECKS[name](*arguments)
    except RdtlError as error:
        return {"error": error.to_dict()}
    return {"findings": [finding.to_dict() for finding in findings]}


def each(requests: str) -> None:
    """Several checks; a line for each as it ends. What they print themselves goes to stderr."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        for name, *arguments in json.loads(requests):
            try:
                said = answer(name, arguments)
            except ModuleNotFoundError as error:
                said = {"skipped": f"{error.name} is not installed in this environment"}
            except Exception as error:  # one check that breaks hides no other
                said = {"unknown": f"{type(error).__name__}: {error}"}
            print(json.dumps({"answer": said}), file=out, flush=True)


def main(argv: list[str]) -> int:
    """Run one check by name, or several."""
    if argv[0] == "each":
        each(argv[1])
        return 0
    said = answer(argv[0], argv[1:])
    print(json.dumps(said))
    return int(said["error"]["exit_status"]) if "error" in said else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
