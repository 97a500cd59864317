"""RDT a second time: literal, slow, and independent of :mod:`rdt.model`.

Plain functions on a state dict, written from what the published code computes.
Nothing is remembered between diffusion steps and norms are single operations,
so this is both the oracle of the property tests and the uncached path that the
sampler is measured against. Names of tensors are those of a checkpoint; W is its
state dict, B samples, L or I condition tokens, H horizon, h hidden, N heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (its usual name)
from torch import Tensor

Weights = Mapping[str, Tensor]
STEPS = 1000


@dataclass(frozen=True)
class Inputs:
    """What a chunk depends on: tokens (B, ·, width), masks bool or None, mask (B, 1, D) 0/1."""

    lang: Tensor
    lang_valid: Tensor | None
    img: Tensor
    img_valid: Tensor | None
    state: Tensor
    mask: Tensor
    freq: Tensor


def linear(W: Weights, name: str, x: Tensor) -> Tensor:
    """One linear layer."""
    return F.linear(x, W[f"{name}.weight"], W[f"{name}.bias"])


def norm(W: Weights, name: str, x: Tensor, epsilon: float = 1e-6) -> Tensor:
    """x / sqrt(unbiased variance + epsilon) * weight; the mean stays."""
    variance = torch.var(x, dim=-1, keepdim=True)
    return x * torch.rsqrt(variance + epsilon) * W[f"{name}.weight"]


def gelu(x: Tensor) -> Tensor:
    """GELU with tanh."""
    return F.gelu(x, approximate="tanh")


def adapt(W: Weights, name: str, x: Tensor) -> Tensor:
    """An adaptor of whatever kind the state dict has."""
    if f"{name}.weight" in W:
        return linear(W, name, x)
    layers = sorted({int(key.split(".")[1]) for key in W if key.startswith(f"{name}.")})
    for index in layers:
        x = linear(W, f"{name}.{index}", gelu(x) if index else x)
    return x


def number(W: Weights, name: str, value: Tensor, rows: int) -> Tensor:
    """Embedded diffusion step or control frequency (rows, 1, h) of numbers (rows,) or (1,)."""
    w = torch.exp(-math.log(1e4) * torch.arange(128, dtype=torch.float32) / 128)
    angle = value[:, None].float() * w
    features = torch.cat([angle.cos(), angle.sin()], dim=1).to(W[f"{name}.mlp.0.weight"].dtype)
    out = linear(W, f"{name}.mlp.2", F.silu(linear(W, f"{name}.mlp.0", features)))
    return out[:, None].expand(rows, 1, -1)


def self_attention(W: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    """Among the tokens."""
    B, T, h = x.shape
    q, k, v = linear(W, f"{name}.qkv", x).view(B, T, 3, heads, h // heads).permute(2, 0, 3, 1, 4)
    q, k = norm(W, f"{name}.q_norm", q), norm(W, f"{name}.k_norm", k)
    out = F.scaled_dot_product_attention(q, k, v)
    return linear(W, f"{name}.proj", out.transpose(1, 2).reshape(B, T, h))


def cross_attention(
    W: Weights, name: str, x: Tensor, condition: Tensor, valid: Tensor | None, heads: int
) -> Tensor:
    """Of the tokens to a condition, whose keys and values are computed here every time."""
    (B, T, h), L = x.shape, condition.shape[1]
    q = linear(W, f"{name}.q", x).view(B, T, heads, h // heads).permute(0, 2, 1, 3)
    k, v = linear(W, f"{name}.kv", condition).view(B, L, 2, heads, -1).permute(2, 0, 3, 1, 4)
    q, k = norm(W, f"{name}.q_norm", q), norm(W, f"{name}.k_norm", k)
    seen = None if valid is None else valid.view(B, 1, 1, L).expand(B, 1, T, L)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    return linear(W, f"{name}.proj", out.permute(0, 2, 1, 3).reshape(B, T, h))


def feed_forward(W: Weights, name: str, x: Tensor) -> Tensor:
    """Two linear layers with GELU between."""
    return linear(W, f"{name}.fc2", gelu(linear(W, f"{name}.fc1", x)))


def conditions(W: Weights, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Adapted language (B, L, h) and pictures (B, I, h), before their positions are added."""
    return adapt(W, "lang_adaptor", inputs.lang), adapt(W, "img_adaptor", inputs.img)


def forward(
    W: Weights,
    heads: int,
    inputs: Inputs,
    adapted: tuple[Tensor, Tensor],
    noisy: Tensor,
    t: Tensor,
) -> Tensor:
    """What the network says, (B, H, D), of noisy actions of that shape at diffusion step t."""
    actions = torch.cat([inputs.state, noisy], dim=1)
    actions = torch.cat([actions, inputs.mask.expand(-1, actions.shape[1], -1)], dim=2)
    B = len(noisy)
    step = number(W, "model.t_embedder", t, B)
    rate = number(W, "model.freq_embedder", inputs.freq, B)
    x = torch.cat([step, rate, adapt(W, "state_adaptor", actions)], dim=1)
    x = x + W["model.x_pos_embed"]
    lang = adapted[0] + W["model.lang_cond_pos_embed"][:, : adapted[0].shape[1]]
    img = adapted[1] + W["model.img_cond_pos_embed"]
    block = 0
    while f"model.blocks.{block}.norm1.weight" in W:
        name = f"model.blocks.{block}"
        condition, valid = (img, inputs.img_valid) if block % 2 else (lang, inputs.lang_valid)
        x = x + self_attention(W, f"{name}.attn", norm(W, f"{name}.norm1", x), heads)
        y = norm(W, f"{name}.norm2", x)
        x = x + cross_attention(W, f"{name}.cross_attn", y, condition, valid, heads)
        x = x + feed_forward(W, f"{name}.ffn", norm(W, f"{name}.norm3", x))
        block += 1
    x = feed_forward(W, "model.final_layer.ffn_final", norm(W, "model.final_layer.norm_final", x))
    return x[:, -noisy.shape[1] :]


def alpha_bars() -> list[float]:
    """ᾱ of the 1000 training steps, rounded as float32 numbers are."""

    def f(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - f((i + 1) / STEPS) / f(i / STEPS), 0.999) for i in range(STEPS)]
    return torch.cumprod(1 - torch.tensor(betas, dtype=torch.float32), dim=0).tolist()


def noised(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Clean actions (B, H, D) with as much noise as at the steps t (B,)."""
    alpha = torch.tensor(alpha_bars())[t].to(clean.dtype)[:, None, None]
    return alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise


def loss(
    W: Weights, heads: int, inputs: Inputs, clean: Tensor, noise: Tensor, t: Tensor, target: str
) -> Tensor:
    """Plain mean squared error against the clean actions (`sample`) or the noise (`epsilon`)."""
    said = forward(W, heads, inputs, conditions(W, inputs), noised(clean, noise, t), t)
    return ((said - (clean if target == "sample" else noise)) ** 2).mean()


def sample(
    W: Weights, heads: int, inputs: Inputs, noise: Tensor, steps: int, target: str
) -> Tensor:
    """A chunk (B, H, D) by DPM-Solver++ 2M; schedule numbers in double precision."""
    adapted = conditions(W, inputs)
    spaced = torch.linspace(0, STEPS - 1, steps + 1, dtype=torch.float64).round().int().tolist()
    asked = spaced[:0:-1]
    bars = alpha_bars()
    sigma_hat = [math.sqrt((1 - bars[t]) / bars[t]) for t in asked] + [0.0]
    alpha = [1 / math.sqrt(s * s + 1) for s in sigma_hat]
    sigma = [s * a for s, a in zip(sigma_hat, alpha, strict=True)]
    level = [
        math.log(a) - math.log(s) if s else math.inf for a, s in zip(alpha, sigma, strict=True)
    ]
    x, before = noise, noise
    for i, t in enumerate(asked):
        said = forward(W, heads, inputs, adapted, x, torch.tensor([t]))
        clean = said if target == "sample" else ((x - sigma[i] * said) / alpha[i]).to(said.dtype)
        h = level[i + 1] - level[i]
        M = clean
        if 0 < i < steps - 1:
            M = clean + 0.5 * (clean - before) * (h / (level[i] - level[i - 1]))
        x = (sigma[i + 1] / sigma[i] * x.float() - alpha[i + 1] * math.expm1(-h) * M).to(x.dtype)
        before = clean
    return x * inputs.mask
