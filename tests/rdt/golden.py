"""Access to the recorded tensors in tests/data."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

DATA = Path(__file__).parents[1] / "data"


def tensors(name: str) -> dict[str, Tensor]:
    """All tensors of a recording."""
    with safe_open(DATA / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)


def config(name: str) -> dict:
    """The recorded network's config.json in the flat form."""
    nested = json.loads((DATA / f"{name}.config.json").read_text())
    nested.pop("dtype")
    inner = nested.pop("config")
    return {**nested, **inner}


def distance(found: Tensor, expected: Tensor) -> float:
    """Relative L2 distance."""
    difference = found.detach().double() - expected.double()
    return float(difference.norm() / expected.double().norm())


def seeded() -> torch.Generator:
    """A generator for random test inputs."""
    return torch.Generator().manual_seed(0)
