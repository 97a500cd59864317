"""LoRA beside training all weights: CPU seconds of a step, memory, size of what is kept.

Each side in processes of its own, in turns (:mod:`benchmarks.training_lora_side`). Memory is what
a process takes beyond its imports, at most, while it makes steps: weights, gradients, optimizer
state, average and activations, as a GPU would hold them, and what the libraries need besides.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks import harness, training_runs
from launcher.core import files
from rdt import lora
from rdt.model.presets import PRESETS
from rdt.model.rdt import Rdt

ROUNDS, LIMIT = 3, 0.5
KINDS = ("full", "lora")


def compare(folder: Path) -> dict[str, Any]:
    """Figures of both kinds, their ratios and the sizes of adapters of the published networks."""
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for number in range(ROUNDS):
        for kind, found in runs.items():
            argv = training_runs.start("training_lora_side", folder, kind)
            training_runs.finished([training_runs.popen(argv)])
            found.append(files.read_json(folder / f"{kind}.json"))
        told = {
            kind: (round(f[-1]["step_s"], 2), round(f[-1]["peak_mib"])) for kind, f in runs.items()
        }
        print(f"LoRA {number + 1}: CPU s, MiB {told}", file=sys.stderr)
    sides = {kind: _side(found) for kind, found in runs.items()}
    full, adapted = (sides[kind] for kind in KINDS)
    memory = adapted["peak"]["median"] / full["peak"]["median"]
    return {
        **sides,
        "step_ratio": round(adapted["step"]["median"] / full["step"]["median"], 3),
        "memory_ratio": round(memory, 3),
        "memory_limit": LIMIT,
        "of_limit": round(memory / LIMIT, 3),
        "file_ratio": round(adapted["file_mb"] / full["file_mb"], 4),
        "adapters_mb": {name: adapter_mb(name) for name in ("170m", "1b")},
    }


def _side(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "step": harness.spread([one["step_s"] for one in found], "CPU s"),
        "peak": harness.spread([one["peak_mib"] for one in found], "MiB"),
        "trained": found[0]["trained"],
        "file_mb": round(found[0]["file_mb"], 2),
    }


def adapter_mb(preset: str) -> dict[str, float]:
    """MB of the float32 weights of a published network, and of its adapter."""
    with torch.device("meta"):
        network = Rdt(PRESETS[preset])
    settings = lora.Lora()
    names = [name for found in lora.match(network, settings.targets).values() for name in found]
    weights = dict(network.named_parameters())
    shapes = [weights[f"{name}.weight"].shape for name in names]
    factors = settings.rank * sum(sum(shape) for shape in shapes)
    whole = sum(parameter.numel() for parameter in network.parameters())
    return {"network": round(4e-6 * whole, 1), "adapter": round(4e-6 * factors, 1)}
