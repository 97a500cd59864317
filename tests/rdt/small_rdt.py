"""Small networks of any size with weights that are nowhere zero or one, and inputs for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from rdt import diffusion
from rdt.model.blocks import Attended
from rdt.model.config import RdtConfig
from rdt.model.rdt import Rdt
from tests.rdt import golden

CONFIG = RdtConfig(
    action_dim=12,
    pred_horizon=9,
    rdt={"hidden_size": 32, "depth": 3, "num_heads": 4, "cond_pos_embed_type": "multimodal"},
    lang_token_dim=13,
    img_token_dim=10,
    state_token_dim=12,
    max_lang_cond_len=11,
    img_cond_len=30,
    lang_pos_embed_config=[["lang", -11]],
    img_pos_embed_config=[["image", [2, 3, -5]]],
)


@dataclass(frozen=True)
class Inputs:
    """What a chunk depends on: tokens (B, ·, width), masks bool, mask (B, 1, D) 0/1, t (B,)."""

    lang: Tensor
    lang_valid: Tensor
    img: Tensor
    state: Tensor
    mask: Tensor
    freq: Tensor
    clean: Tensor
    noise: Tensor
    t: Tensor

    def to(self, dtype: torch.dtype) -> Inputs:
        """The same with tokens, state, mask and actions in ``dtype``; frequencies stay."""
        return replace(
            self,
            **{
                name: getattr(self, name).to(dtype)
                for name in ("lang", "img", "state", "mask", "clean", "noise")
            },
        )

    def repeated(self, times: int) -> Inputs:
        """Every row several times; noise and step are others for each."""
        every = {f.name: getattr(self, f.name).repeat_interleave(times, 0) for f in fields(self)}
        random = golden.seeded()
        every["noise"] = torch.randn(every["noise"].shape, generator=random)
        every["t"] = torch.randint(0, 1000, every["t"].shape, generator=random)
        return Inputs(**every)


def changed(**values: Any) -> RdtConfig:
    """CONFIG with other values."""
    return replace(CONFIG, **values)


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Move every parameter away from the zeros and ones that some begin with."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.5 * parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.add_(torch.randn(parameter.shape, generator=random), alpha=scale)


def network(config: RdtConfig, seed: int = 0) -> Rdt:
    """A network of the given sizes; the same for the same seed."""
    torch.manual_seed(seed)
    made = Rdt(config).eval()
    randomise(made, seed)
    return made


def inputs(config: RdtConfig, rows: int, language: int, seed: int = 0) -> Inputs:
    """Random inputs; of row i the last i % language instruction tokens are padding."""
    random = torch.Generator().manual_seed(seed)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=random)

    mask = (numbers(1, config.action_dim) > -0.7).float()
    length = language - torch.arange(rows) % language
    return Inputs(
        lang=numbers(language, config.lang_token_dim),
        lang_valid=torch.arange(language) < length[:, None],
        img=numbers(config.img_cond_len, config.img_token_dim),
        state=numbers(1, config.state_token_dim),
        mask=mask,
        freq=torch.full((rows,), 20.0),
        clean=numbers(config.pred_horizon, config.action_dim) * mask,
        noise=numbers(config.pred_horizon, config.action_dim),
        t=torch.randint(0, 1000, (rows,), generator=random),
    )


def predict(network: Rdt, inputs: Inputs, keys: Sequence[Attended] | None = None) -> Tensor:
    """What the network says of the noisy actions of ``inputs``."""
    noisy = diffusion.add_noise(diffusion.alphas_cumprod(), inputs.clean, inputs.noise, inputs.t)
    if keys is None:
        keys = network.keys(inputs.lang, inputs.lang_valid, inputs.img)
    return network.denoise(inputs.state, noisy, inputs.mask, inputs.freq, inputs.t, keys)


@torch.inference_mode()
def sample(network: Rdt, inputs: Inputs) -> Tensor:
    """A chunk, with keys computed once."""
    keys = network.keys(inputs.lang, inputs.lang_valid, inputs.img)
    alphas = diffusion.alphas_cumprod()
    return network.sample(inputs.state, inputs.mask, inputs.freq, keys, inputs.noise, alphas)
