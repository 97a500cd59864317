"""The reference's layout, for programs that know no other.

config.json in its flat form, pytorch_model.bin with plain tensors under the
reference's names (nothing that a restricted reader would refuse), a README made
from the card, and the card itself, which other programs ignore.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.errors import RefusedError
from rdt.checkpoint import tensors
from rdt.checkpoint.opening import VISION, Checkpoint
from rdt.checkpoint.places import CONFIG, PICKLED
from rdt.checkpoint.saving import publish, write_tensors
from rdt.spec.card import Card, weights_sha256
from rdt.spec.contract import Contract, require_same


def export(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the checkpoint, as it is stored, to the new ``folder``.

    Raises RefusedError RDTL-T035 for a policy with a vision encoder of its own,
    UsageError RDTL-U027 when ``folder`` exists.
    """
    if VISION in checkpoint.data:
        raise RefusedError(
            "RDTL-T035",
            "this policy has a vision encoder of its own",
            where=f"{checkpoint.origin.config}: {VISION}",
            why="the reference's layout has no place for it, and without it the rest is of no use",
            fix="copy the policy directory as it is; `rdtl evaluate` reads it",
        )
    publish(folder, lambda inside: _write(checkpoint, inside, folder.name))


def _write(checkpoint: Checkpoint, folder: Path, name: str) -> None:
    write_tensors(folder / PICKLED, tensors.mapped(checkpoint.origin.path))
    files.write_json(folder / CONFIG, checkpoint.config.to_dict())
    if checkpoint.card is not None:
        replace(checkpoint.card, weights_sha256=weights_sha256(folder / PICKLED)).write(folder)
    files.write_text(folder / "README.md", readme(checkpoint, name))


def readme(checkpoint: Checkpoint, name: str) -> str:
    """What a person must know to use the weights, in Markdown."""
    config, card = checkpoint.config, checkpoint.card
    parameters = sum(stored.numel for stored in checkpoint.header.values())
    lines = [
        f"# {name}",
        "",
        f"A Robotics Diffusion Transformer with {parameters:,} parameters "
        f"({checkpoint.origin.dtype}; {checkpoint.origin.weights} weights), hidden size "
        f"{config.hidden_size}, depth {config.depth}, {config.num_heads} heads, chunks of "
        f"{config.pred_horizon} actions. Written by RDT Launcher.",
        "",
    ]
    if card is None:
        return "\n".join(
            [*lines, "It came without a card: units, signs and cameras are unknown.\n"]
        )
    contract = require_same(card.contract, name)
    return "\n".join([*lines, *_feeding(card, contract), *_slots(contract), ""])


def _feeding(card: Card, contract: Contract) -> list[str]:
    rows: list[tuple[str, Any]] = [
        ("contract", contract.name),
        ("cameras, in order", ", ".join(camera or "(none)" for camera in contract.cameras)),
        ("rotation of the pictures", contract.camera_rotation),
        ("vision", card.encoders["vision"]),
        ("language", card.encoders["language"]),
        ("state normalisation", contract.state_normalisation),
        ("simulator's gripper", contract.simulator_gripper),
        ("control steps a second", contract.control_hz),
    ]
    return [
        "| what it expects | |",
        "|---|---|",
        *(f"| {key} | {value} |" for key, value in rows),
        "",
    ]


def _slots(contract: Contract) -> list[str]:
    rows = [
        (kind, part.slots_text, part.name, part.unit.replace("|", "\\|"), part.frame)
        for kind, parts in (("state", contract.state), ("action", contract.action))
        for part in parts
    ]
    table = [f"| {' | '.join(row)} |" for row in rows]
    return ["| of the 128 | slots | meaning | unit | frame |", "|---|---|---|---|---|", *table]
