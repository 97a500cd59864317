"""The page that a repository on the hub shows: README.md, from what is uploaded with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rdt.spec import card as cards


def card(kind: str, name: str, folder: Path, paths: Sequence[str]) -> str:
    """A card for ``paths`` of ``folder``: facts only, those of card.json where it is uploaded."""
    title = name.rpartition("/")[2]
    below = next((path for path in paths if Path(path).name == cards.FILE), None)
    facts = json.loads((folder / below).read_text(encoding="utf-8")) if below else {}
    head = ["---", "library_name: rdt-launcher", "tags:", "- robotics"]
    head += ["pipeline_tag: robotics"] if kind == "model" else []
    size = sum((folder / path).stat().st_size for path in paths)
    body = [f"# {title}", "", f"{len(paths)} files, {size:,} bytes, uploaded by RDT Launcher."]
    return "\n".join([*head, "---", "", *body, *_policy(facts), ""])


def _policy(facts: dict[str, object]) -> list[str]:
    if not facts:
        return []
    rows = {
        "contract": json.dumps(facts.get("contract"), sort_keys=True),
        "encoders": json.dumps(facts.get("encoders"), sort_keys=True),
        "weights": f"{facts.get('weights')}, {facts.get('dtype')}",
        "SHA-256 of the weights": f"`{facts.get('weights_sha256')}`",
        "statistics": f"`{facts.get('statistics_digest')}`",
        "horizon": f"{facts.get('horizon')} control steps",
        "training": json.dumps(facts.get("training"), sort_keys=True),
    }
    table = [f"| {key} | {str(value).replace('|', '/')} |" for key, value in rows.items()]
    return ["", "What the policy eats and emits (`card.json`):", "", "| | |", "|---|---|", *table]
