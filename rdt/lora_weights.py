"""Weights of a network with an adapter on it, by name: joined into plain ones, or taken apart."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

BASE, A, B = ".base_layer.", ".lora_A.default.", ".lora_B.default."


def peft_name(name: str) -> str:
    """What peft calls a factor in its files."""
    return "base_model.model." + name.replace(".default.", ".")


def factors(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The factors among ``weights``, by peft's names."""
    return {peft_name(name): weights[name] for name in weights if A in name or B in name}


def merged(weights: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Plain weights: each adapted layer plus ``scale`` times the product of its factors."""
    plain = {}
    for name, tensor in weights.items():
        if A in name or B in name:
            continue
        first = weights.get(name.replace(BASE, A)) if BASE in name else None
        if first is not None:  # biases have no factors
            tensor = tensor + scale * (weights[name.replace(BASE, B)] @ first)
        plain[name.replace(BASE, ".")] = tensor
    return plain
