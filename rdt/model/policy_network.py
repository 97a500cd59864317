"""The network of a policy: RDT with the vision tower that is trained with it.

Its state dict is what ``policy/model.safetensors`` holds: the reference's keys
plus `vision.*`. Shapes: B pictures pairs, H horizon, I picture tokens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rdt import diffusion
from rdt.encoders import MAX_WORDS, WORD_WIDTH, VisionConfig, VisionTower
from rdt.model.blocks import Attended
from rdt.model.config import NOISE_SCHEDULER, RdtConfig, parse
from rdt.model.rdt import Rdt
from rdt.spec.contract import UNIFIED_SIZE, Contract

PICTURE_HISTORY = 1  # a network trained from scratch sees the present pictures only


class Batch(NamedTuple):
    """One micro batch of one rank; ``draws`` noise draws per picture pair.

    pictures (B, cameras, S, S, 3) uint8 raw; words (B, L, 64) and word_valid (B, L)
    bool, or (1, …), one instruction for all; state (B, 1, 128) z-scored; mask (B, 1, 128) and
    freq (B,) Hz, zeros where the network is not told; actions (B, H, 128); weight (B, H):
    share of each step in the loss, 0 for padding; slots (128,): share of each slot in a
    step's error; noise (B * draws, H, 128) and t (B * draws,), the draws of one pair in
    succession.
    """

    pictures: Tensor
    words: Tensor
    word_valid: Tensor
    state: Tensor
    mask: Tensor
    freq: Tensor
    actions: Tensor
    weight: Tensor
    slots: Tensor
    noise: Tensor
    t: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        return Batch(*(tensor.to(device) for tensor in self))


class PolicyNetwork(Rdt):
    """Pictures, words and state to actions; `forward` is the training loss."""

    mask: Tensor
    freq: Tensor
    alphas: Tensor

    def __init__(self, config: RdtConfig, vision: VisionConfig, contract: Contract) -> None:
        super().__init__(config)
        self.vision = VisionTower(vision)
        mask = torch.zeros(1, 1, UNIFIED_SIZE)
        mask[..., list(contract.mask_slots)] = 1.0
        # Constants, not weights: buffers only to follow the module to its device.
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("freq", torch.tensor([float(contract.control_hz)]), persistent=False)
        self.register_buffer("alphas", diffusion.alphas_cumprod(), persistent=False)

    def condition(self, pictures: Tensor, words: Tensor, word_valid: Tensor) -> list[Attended]:
        """Attention keys of (B, cameras, S, S, 3) uint8 pictures and (B or 1, L, 64) words."""
        tokens = self.vision(pictures.flatten(0, 1))
        return self.keys(words, word_valid, tokens.reshape(len(pictures), -1, tokens.shape[-1]))

    def forward(self, batch: Batch, sampled: bool = False) -> Tensor:
        """The squared error, summed with the weights of steps and slots.

        ``sampled``: instead a chunk (B, H, 128) of each sample, from its first noise. Both
        are here because ZeRO 3 gathers weights only inside of this call.
        """
        keys = self.condition(batch.pictures, batch.words, batch.word_valid)
        draws = len(batch.noise) // len(batch.actions)
        if sampled:
            given = (batch.state, batch.mask, batch.freq)
            return self.sample(*given, keys, batch.noise[::draws], self.alphas)
        clean = batch.actions.repeat_interleave(draws, dim=0)
        noisy = diffusion.add_noise(self.alphas, clean, batch.noise, batch.t)
        given = (batch.state, batch.mask, batch.freq)
        state, mask, freq = (part.repeat_interleave(draws, dim=0) for part in given)
        predicted = self.denoise(state, noisy, mask, freq, batch.t, keys)
        wanted = diffusion.target(self.config.prediction_type, clean, batch.noise)
        error = ((predicted - wanted).square() * batch.slots).sum(dim=-1)
        return (error * batch.weight.repeat_interleave(draws, dim=0)).sum() / draws


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
