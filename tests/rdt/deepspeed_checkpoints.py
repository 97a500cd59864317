"""``python -m tests.rdt.deepspeed_checkpoints OUT STAGE…``: what the reference's trainer leaves.

One optimizer step of a tiny network under DeepSpeed for each stage ("0", "1", "2-bf16",
"3"), then `save_checkpoint` as accelerate calls it, into ``OUT/STAGE/``. The weights as
they were at that moment lie beside it as ``OUT/STAGE.safetensors``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.update(
    RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0"
)

import deepspeed
import torch
import torch.distributed as dist
from safetensors.torch import save_file

from rdt.spec import deepspeed as settings
from rdt.training import engine
from tests.rdt import checkpoints


def main(out: Path, stages: list[str]) -> None:
    """Train and save once for each stage."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    engine.start()
    deepspeed.logger.setLevel("WARNING")
    for stage in stages:
        train(out / stage, int(stage[0]), stage.endswith("bf16"))
    engine.stop()


def train(folder: Path, stage: int, bf16: bool) -> None:
    """One step and its checkpoint. Under ZeRO-3 there is no step: it needs hooks that the
    network's verbs have no place for, and the layout of the files does not depend on it."""
    made = checkpoints.network()
    config = settings.config(
        {
            "effective_batch": 1,
            "micro_batch": 1,
            "accumulation": 1,
            "gradient_clipping": 1.0,
            "zero_stage": stage,
            "learning_rate": 1e-3,
            "weight_decay": 0.0,
            "dtype": "fp32",
            "offload": False,
            "deepspeed": None,
        }
    )
    if bf16:
        config["bf16"] = {"enabled": True}
    wrapped, *_ = deepspeed.initialize(
        model=made, model_parameters=made.parameters(), config=config
    )
    if stage < 3:
        wrapped.backward(sum(p.float().square().sum() for p in made.parameters()))
        wrapped.step()
        weights = {name: tensor.clone() for name, tensor in made.state_dict().items()}
        save_file(weights, folder.with_name(f"{folder.name}.safetensors"))
    else:
        torch.save(made.state_dict(), folder.with_name(f"{folder.name}.bin"))
    wrapped.save_checkpoint(str(folder), tag="pytorch_model")
    (folder / "config.json").write_text(json.dumps(made.config.to_dict()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
