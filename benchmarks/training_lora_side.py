"""One side of :mod:`benchmarks.training_lora`: ``… training_lora_side FOLDER full|lora``.

The published 170M sizes but for the depth, bf16 with float32 master weights, EMA, one sample
with all 4374 picture tokens. What SigLIP says is the same random tokens at every step: it is
frozen and costs both sides the same.
"""

from __future__ import annotations

import ctypes
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft  # noqa: F401  both sides import it, so that only one's use of memory does not show it
import torch

from launcher.core import files
from launcher.schema_train import Train
from rdt import lora, lora_weights
from rdt.checkpoint.saving import write_tensors
from rdt.model.presets import PRESETS
from rdt.model.trainable import Batch, FineTuned
from rdt.training import engine as distributed
from rdt.training.ema import Ema
from rdt.training.engine import Engine
from tests.rdt import small_rdt

DEPTH, WORDS = 4, 32
WARM, STEPS = 1, 3
CONFIG = replace(PRESETS["170m"], rdt={**PRESETS["170m"].rdt, "depth": DEPTH})


def memory(name: str) -> float:
    """MiB of this process: VmRSS is now, VmHWM the most since :func:`forget_peak`."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def forget_peak() -> None:
    """From now on VmHWM is that of what comes, without what the allocator merely keeps."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def batch(given: small_rdt.Inputs) -> Batch:
    """One sample as training gives it."""
    pictures = torch.zeros(1, 1, 1, 1, 3, dtype=torch.uint8)  # the encoder does not look at them
    weight = torch.full((1, CONFIG.pred_horizon), 1 / CONFIG.pred_horizon)
    slots = torch.full((CONFIG.action_dim,), 1 / CONFIG.action_dim)
    told = (given.lang, given.lang_valid, given.state, given.mask, given.freq)
    return Batch(pictures, *told, given.clean, weight, slots, given.noise, given.t)


def train(kind: str) -> tuple[FineTuned, lora.Adapted | None, dict[str, Any]]:
    """A few steps; the network, its adapter and the figures."""
    before = memory("VmRSS")
    torch.manual_seed(0)
    given = small_rdt.inputs(CONFIG, rows=1, language=WORDS)
    tokens = given.img.to(torch.bfloat16)
    # Not fresh: there the last layer is zero, and no gradient gets behind it.
    module = FineTuned(small_rdt.network(CONFIG), lambda pictures: tokens).train()
    adapted = lora.add(module, lora.Lora()) if kind == "lora" else None
    settings = Train(micro_batch=1, ranks_per_node=1, effective_batch=1, dtype="bf16")
    engine = Engine(module, settings.model_dump(), torch.device("cpu"))
    ema = Ema(engine.owned(), 0.75)
    sample = batch(given)
    seconds, losses = [], []
    for step in range(WARM + STEPS):
        if step == WARM:
            forget_peak()
        began = time.process_time()
        losses.append(engine.step([sample], 1e-4))
        ema.update()
        seconds.append(time.process_time() - began)
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return module, adapted, {
        "step_s": sum(seconds[WARM:]) / STEPS,
        "held_mib": memory("VmRSS") - before,
        "peak_mib": memory("VmHWM") - before,
        "trained": trained,
        "losses": losses,
    }  # fmt: skip


def main(folder: Path, kind: str) -> None:
    """Train, write what is kept of it, leave the figures."""
    distributed.start()
    module, adapted, figures = train(kind)
    weights = {name: p.detach().float() for name, p in module.named_parameters()}
    kept = folder / f"{kind}.safetensors"
    write_tensors(kept, lora_weights.factors(weights) if adapted else weights)
    figures["file_mb"] = kept.stat().st_size / 1e6
    files.write_json(folder / f"{kind}.json", figures)
    distributed.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
