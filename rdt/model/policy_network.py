"""The network of a policy: RDT with the vision tower that is trained with it.

Its state dict is what ``policy/model.safetensors`` holds: the reference's keys
plus `vision.*`. Shapes: B pictures pairs, H horizon, I picture tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rdt.encoders import MAX_WORDS, WORD_WIDTH, VisionConfig, VisionTower
from rdt.model.config import NOISE_SCHEDULER, RdtConfig, parse
from rdt.model.trainable import Trainable
from rdt.spec.contract import UNIFIED_SIZE, Contract

PICTURE_HISTORY = 1  # a network trained from scratch sees the present pictures only


class PolicyNetwork(Trainable):
    """Pictures, words and state to actions."""

    mask: Tensor
    freq: Tensor

    def __init__(self, config: RdtConfig, vision: VisionConfig, contract: Contract) -> None:
        super().__init__(config)
        self.vision = VisionTower(vision)
        mask = torch.zeros(1, 1, UNIFIED_SIZE)
        mask[..., list(contract.mask_slots)] = 1.0
        # Constants, not weights: buffers only to follow the module to its device.
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("freq", torch.tensor([float(contract.control_hz)]), persistent=False)

    def see(self, pictures: Tensor) -> Tensor:
        """The own vision tower's tokens."""
        return self.vision(pictures)


def config_from_run(model: dict[str, Any], camera_size: int, contract: Contract) -> dict[str, Any]:
    """Content of a policy's config.json from ``train.model`` of a run's configuration."""
    vision = VisionConfig(
        hidden_size=model["vision_hidden"],
        num_hidden_layers=model["vision_depth"],
        num_attention_heads=model["heads"],
        intermediate_size=4 * model["vision_hidden"],
        image_size=camera_size,
        patch_size=model["patch"],
    )
    grid = [PICTURE_HISTORY, len(contract.cameras), -vision.tokens]
    rdt = RdtConfig(
        action_dim=UNIFIED_SIZE,
        pred_horizon=model["horizon"],
        rdt={
            "hidden_size": model["hidden"],
            "depth": model["depth"],
            "num_heads": model["heads"],
            "cond_pos_embed_type": "multimodal",
        },
        lang_token_dim=WORD_WIDTH,
        img_token_dim=vision.hidden_size,
        state_token_dim=UNIFIED_SIZE,
        max_lang_cond_len=MAX_WORDS,
        img_cond_len=-grid[0] * grid[1] * grid[2],
        lang_pos_embed_config=[["lang", -MAX_WORDS]],
        img_pos_embed_config=[["image", grid]],
        noise_scheduler={
            **NOISE_SCHEDULER,
            "num_inference_timesteps": model["sampling_steps"],
        },
    )
    return {**rdt.to_dict(), "vision": vision.to_dict()}


def build(config: dict[str, Any], contract: Contract, where: str) -> PolicyNetwork:
    """A network with fresh weights from the content of config.json.

    Raises RefusedError RDTL-T021 when a field is missing, unknown or not supported.
    """
    flat = dict(config)
    vision = flat.pop("vision", {})
    return PolicyNetwork(parse(flat, where), VisionConfig(**vision), contract)
