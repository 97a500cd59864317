"""SigLIP as the public checkpoints use it: the last hidden state of every patch, frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rdt.encoders import pretrained

PUBLIC = "google/siglip-so400m-patch14-384"


class Siglip:
    """Pictures (n, S, S, 3) uint8 to tokens (n, (S / patch)², width) in the encoder's dtype."""

    def __init__(self, model: Any) -> None:
        """``model`` is a ``transformers.SiglipVisionModel``."""
        self.model = model.eval().requires_grad_(False)
        self.size: int = model.config.image_size
        self.width: int = model.config.hidden_size
        self.tokens: int = (self.size // model.config.patch_size) ** 2

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Tensor:
        pixels = pictures.to(self.model.device).permute(0, 3, 1, 2).to(torch.float32)
        pixels = ((pixels / 255 - 0.5) / 0.5).to(self.model.dtype)
        return self.model(pixel_values=pixels).last_hidden_state


def load(source: str | Path, dtype: torch.dtype, device: str | torch.device) -> Siglip:
    """SigLIP from a folder or a hub id, of a vision model or of the whole one.

    Raises RdtlError RDTL-T020 when it does not load or tensors are missing.
    """
    from transformers import SiglipVisionModel

    model = pretrained.load(SiglipVisionModel, source, dtype, vision_use_head=False)
    return Siglip(model.to(device))
