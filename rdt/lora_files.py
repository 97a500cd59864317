"""The folder of an adapter: factors, peft's settings, and base.json, which says on which
weights they belong."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

from torch import Tensor

from launcher.core import files
from launcher.core.errors import RdtlError
from rdt.checkpoint.saving import write_tensors

WEIGHTS, CONFIG, BASE = "adapter_model.safetensors", "adapter_config.json", "base.json"


def write(
    folder: Path,
    factors: Mapping[str, Tensor],
    config: Any,
    base: str,
    matched: dict[str, list[str]],
) -> None:
    """Fill ``folder``: ``factors`` by peft's names, its ``config``, and what says on which base
    and layers they belong."""
    write_tensors(folder / WEIGHTS, factors)
    config = copy(config)
    config.target_modules = sorted(name for names in matched.values() for name in names)
    config.save_pretrained(folder)  # whole names: peft shortens them to ends that are ambiguous
    files.sync_file(folder / CONFIG)
    files.write_json(folder / BASE, {"base": base, "matched": matched})


def made_for(path: Path) -> dict[str, Any]:
    """What base.json says: the digest ``base``, and ``matched``, names of layers by target."""
    data = _read(path)
    matched = data.get("matched")
    if not isinstance(data.get("base"), str) or not isinstance(matched, dict):
        raise damaged(path, "no text base, or no object matched")
    groups = list(matched.values())
    if not all(isinstance(g, list) and all(isinstance(n, str) for n in g) for g in groups):
        raise damaged(path, "matched holds no lists of names")
    return data


def settings(folder: Path) -> Any:
    """peft's settings; it fails in many ways on a file that is not its own."""
    from peft import LoraConfig

    _read(folder / CONFIG)
    try:
        config = LoraConfig.from_pretrained(folder)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise damaged(folder / CONFIG, error) from error
    if type(config) is not LoraConfig:
        raise damaged(folder / CONFIG, f"peft_type is {config.peft_type}, not LORA")
    return config


def damaged(path: Path, found: object) -> RdtlError:
    """The error for a file that is not as :func:`write` leaves it."""
    return RdtlError(
        "RDTL-T031",
        "a file of an adapter is missing or damaged",
        where=f"{path}: {found}",
        why="an adapter is of use only whole, and on the base that its folder names",
        fix=f"copy the whole folder again: {WEIGHTS}, {CONFIG}, {BASE}",
    )


def require_same(path: Path, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise RdtlError RDTL-T020 unless names and shapes are the same."""
    wrong = [
        name
        for name in sorted({*found, *expected})
        if name not in found or name not in expected or found[name].shape != expected[name].shape
    ]
    if wrong:
        raise RdtlError(
            "RDTL-T020",
            "the adapter's tensors do not fit its configuration",
            where=f"{path}: {len(wrong)} missing, unexpected or of another shape: {wrong[0]}, …",
            why="a part of the adapter would stay without effect",
            fix="copy the whole folder again",
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(files.read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise damaged(path, error) from error
