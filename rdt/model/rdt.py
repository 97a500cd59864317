"""RDT as its checkpoints know it: three adaptors around the transformer, loss and sampling.

One mask of used slots (B, 1, 128) float 0/1 stands beside the state and beside
every action token, and multiplies the sampled chunk at the end. It must be the
union of state and action slots: the reference has one mask for all three uses.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from rdt import diffusion
from rdt.model.blocks import Keys
from rdt.model.config import RdtConfig
from rdt.model.transformer import Transformer


def adaptor(kind: str, width_in: int, width: int) -> nn.Module:
    """`linear`, or `mlpNx_gelu`: N linear layers with tanh-GELU between them.

    Raises ValueError for another name.
    """
    if kind == "linear":
        return nn.Linear(width_in, width)
    match = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    if match is None:
        raise ValueError(f"adaptor {kind!r} is not known: use linear or mlpNx_gelu")
    layers: list[nn.Module] = [nn.Linear(width_in, width)]
    for _ in range(int(match[1]) - 1):
        layers += [nn.GELU(approximate="tanh"), nn.Linear(width, width)]
    return nn.Sequential(*layers)


class Rdt(nn.Module):
    """The network of a checkpoint; keys `model.*`, `lang_adaptor.*`, `img_adaptor.*`, `state_…`."""

    def __init__(self, config: RdtConfig) -> None:
        super().__init__()
        h = config.hidden_size
        self.config = config
        self.model = Transformer(config)
        self.lang_adaptor = adaptor(config.lang_adaptor, config.lang_token_dim, h)
        self.img_adaptor = adaptor(config.img_adaptor, config.img_token_dim, h)
        self.state_adaptor = adaptor(config.state_adaptor, 2 * config.state_token_dim, h)

    def keys(
        self,
        lang_tokens: Tensor,
        lang_valid: Tensor | None,
        img_tokens: Tensor,
        img_valid: Tensor | None = None,
    ) -> list[Keys]:
        """What no diffusion step changes: attention keys of language (B, L, ·) and pictures.

        ``lang_valid`` (B, L) bool, True = valid; None: all are.
        """
        return self.model.keys(
            self.lang_adaptor(lang_tokens), self.img_adaptor(img_tokens), lang_valid, img_valid
        )

    def denoise(
        self, state: Tensor, noisy: Tensor, mask: Tensor, freq: Tensor, t: Tensor, keys: list[Keys]
    ) -> Tensor:
        """Estimate of the clean chunk (B, H, 128).

        state (B, 1, 128), noisy (B, H, 128), mask (B, 1, 128), freq (B,) Hz, t (B,) or (1,).
        """
        tokens = torch.cat([state, noisy], dim=1)
        tokens = torch.cat([tokens, mask.expand(-1, tokens.shape[1], -1)], dim=2)
        return self.model(self.state_adaptor(tokens), freq, t, keys)

    @torch.inference_mode()
    def sample(
        self,
        state: Tensor,
        mask: Tensor,
        freq: Tensor,
        keys: list[Keys],
        noise: Tensor,
        alphas: Tensor,
    ) -> Tensor:
        """A chunk of actions (B, H, 128), zero outside the mask, from ``noise`` of that shape.

        The noise is not masked: in training it is not either.
        """

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return self.denoise(state, x, mask, freq, t, keys)

        return diffusion.sample(denoise, noise, alphas, self.config.sampling_steps) * mask
