"""The sizes that tensors have, in the words of config.json.

When weights and config.json do not belong together, hundreds of tensors have
another shape for one reason. The fields are read off the tensors themselves, so
that the error can name the reason (RDTL-T021).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from rdt.checkpoint.tensors import Stored
from rdt.model.config import RdtConfig

ADAPTORS = {"lang": "lang_token_dim", "img": "img_token_dim", "state": "state_token_dim"}


class Difference(NamedTuple):
    """A field of config.json, its value there, and the value that the tensors have."""

    field: str
    config: object
    tensors: object


def differences(config: RdtConfig, header: Mapping[str, Stored]) -> list[Difference]:
    """Fields in which ``config`` and the tensors disagree, as far as tensors tell."""
    return [
        Difference(field, _value(config, field), value)
        for field, value in _fields(header).items()
        if value != _value(config, field)
    ]


def _value(config: RdtConfig, field: str) -> object:
    name, _, inner = field.partition(".")
    value = getattr(config, name)
    return value.get(inner) if inner else value


def _fields(header: Mapping[str, Stored]) -> dict[str, object]:
    shapes = {name: stored.shape for name, stored in header.items()}
    fields: dict[str, object] = {}
    if len(table := shapes.get("model.x_pos_embed", ())) == 3:
        fields["rdt.hidden_size"] = table[2]
        fields["pred_horizon"] = table[1] - 3
        if norm := shapes.get("model.blocks.0.attn.q_norm.weight"):
            fields["rdt.num_heads"] = table[2] // max(norm[0], 1)
    blocks = {int(m[1]) for name in shapes if (m := re.match(r"model\.blocks\.(\d+)\.", name))}
    if blocks:
        fields["rdt.depth"] = max(blocks) + 1
    for field, key in (
        ("max_lang_cond_len", "model.lang_cond_pos_embed"),
        ("img_cond_len", "model.img_cond_pos_embed"),
    ):
        if len(table := shapes.get(key, ())) == 3:
            fields[field] = table[1]
    if last := shapes.get("model.final_layer.ffn_final.fc2.weight"):
        fields["action_dim"] = last[0]
    for kind, field in ADAPTORS.items():
        fields |= _adaptor(shapes, kind, field)
    return fields


def _adaptor(shapes: Mapping[str, tuple[int, ...]], kind: str, field: str) -> dict[str, object]:
    """Kind and input width; the state's adaptor sees each value beside its mask."""
    layers = [name for name in shapes if re.fullmatch(rf"{kind}_adaptor\.(\d+\.)?weight", name)]
    first = f"{kind}_adaptor.weight" if f"{kind}_adaptor.weight" in layers else None
    name = "linear" if first else f"mlp{len(layers)}x_gelu"
    shape = shapes.get(first or f"{kind}_adaptor.0.weight", ())
    if len(shape) != 2:
        return {}
    return {f"{kind}_adaptor": name, field: shape[1] // (2 if kind == "state" else 1)}
