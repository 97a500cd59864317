"""What a checkpoint on this disk says of itself without being opened: no torch, no hub.

Loading (``rdt.checkpoint``) knows every layout and refuses what is wrong; this only helps to
plan, and says nothing of what it does not find.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.core import files
from rdt.spec import card as cards

FILES = ("model.safetensors", "pytorch_model.bin")
BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Of a number, by the type that a card names."""


def card(place: str) -> dict[str, Any] | None:
    """The card of a run, a folder or a file of weights, unchecked; None where none is seen."""
    try:
        found = files.read_json(_folder(place) / cards.FILE)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "encoders" in found else None


def numbers(place: str) -> int:
    """How many weights a checkpoint with a card has, by the size of its largest file; else 0."""
    told = card(place)
    size = BYTES.get((told or {}).get("dtype", "").partition(",")[0])
    if size is None:
        return 0
    found = [_folder(place) / name for name in FILES]
    return max((path.stat().st_size for path in found if path.is_file()), default=0) // size


def _folder(place: str) -> Path:
    path = Path(place)
    if path.is_file():
        return path.parent
    return path if (path / cards.FILE).is_file() else path / "policy"
