"""Layers of the RDT transformer, with the reference's parameter names.

Shapes: B samples, T tokens, L condition tokens, N heads, d = h / N. Every
linear layer has a bias. `Keys` are the normalised keys and the values of one
condition; they do not depend on the diffusion step, so a sampled chunk
computes them once. A batch of queries may be a multiple of the batch of keys
(several noise draws of one picture): queries of one condition are then simply
more queries. Where memory matters more than time, a block gets the `Condition`
itself and computes keys that live no longer than the block's own work.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from launcher.core.errors import RefusedError


class _Normalise(torch.autograd.Function):
    """x / sqrt(unbiased variance + epsilon) * weight, written out to spare passes over memory.

    The fused layer norm kernel gives (x - mean) / spread * weight in one pass; a second
    one adds the mean again. That is five to six times as fast on a CPU as the same in
    single operations, which are a sixth of a training step and a fifth of a chunk.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        n = x.shape[-1]
        unbiased = (n - 1) / n  # the kernel divides by n and adds epsilon to that
        narrow = weight * unbiased**0.5
        out, mean, spread = torch.native_layer_norm(x, (n,), narrow, None, epsilon * unbiased)
        mean, spread = mean.to(x.dtype), spread.to(x.dtype)
        ctx.save_for_backward(x, weight, mean, spread * unbiased**0.5)
        # The autocast of a GPU lets the kernel say float32, and the way back needs one type.
        return out.addcmul_(mean * spread, narrow).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, mean, scale = ctx.saved_tensors
        (gradient,) = gradients
        along = gradient * x
        of_weight = (along * scale).flatten(0, -2).sum(dim=0)
        pull = (along @ weight)[..., None] * (scale**3 / (x.shape[-1] - 1))
        of_x = torch.addcmul(pull * mean, gradient * weight, scale).addcmul_(x, pull, value=-1)
        return of_x, of_weight, None


class RmsNorm(nn.Module):
    """x / sqrt(variance + 1e-6) * weight over the last axis; the mean is not subtracted.

    The reference ran with a library version that took the *unbiased variance about
    the mean* for the mean square. A checkpoint needs just that: a true RMS norm
    changes the output by about 7 % (RDTL-T001).
    """

    epsilon = 1e-6

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return _Normalise.apply(x, self.weight, self.epsilon)


class Keys(NamedTuple):
    """Keys and values (B, N, L, d) of one condition and which tokens are valid (B, 1, 1, L)."""

    k: Tensor
    v: Tensor
    valid: Tensor | None


class Condition(NamedTuple):
    """Tokens (B, L, h) with their positions, of which keys are made; ``valid`` (B, L) bool."""

    tokens: Tensor
    valid: Tensor | None


Attended = Keys | Condition
"""What the tokens of a block look at."""


def require_bool(valid: Tensor | None, name: str) -> None:
    """Raise RefusedError RDTL-D022 for a mask that is not bool."""
    if valid is not None and valid.dtype != torch.bool:
        raise RefusedError(
            "RDTL-D022",
            f"the mask of {name} tokens is not bool",
            where=f"{name} mask {tuple(valid.shape)}: {valid.dtype}",
            why="attention adds the numbers of any other mask to its scores, and hides nothing",
            fix="pass mask.bool(), True for tokens to look at",
        )


class SelfAttention(nn.Module):
    """Attention among the T tokens of a sample."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = RmsNorm(width // heads)
        self.k_norm = RmsNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        B, T, h = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        out = functional.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)
        return self.proj(out.transpose(1, 2).reshape(B, T, h))


class CrossAttention(nn.Module):
    """Attention of the tokens to one condition (language or pictures)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.q_norm = RmsNorm(width // heads)
        self.k_norm = RmsNorm(width // heads)
        self.proj = nn.Linear(width, width)

    def keys(self, condition: Tensor, valid: Tensor | None) -> Keys:
        """Condition (B, L, h), ``valid`` (B, L) bool (True = look at it) or None.

        Both results lie in memory head by head: attention reads them at every diffusion
        step, and nothing else is kept alive, 2 · L · h numbers a sample and block.
        """
        B, L, _ = condition.shape
        k, v = self.kv(condition).view(B, L, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = None if valid is None else valid[:, None, None, :]
        return Keys(self.k_norm(k), v.contiguous(), seen)

    def forward(self, x: Tensor, keys: Attended) -> Tensor:
        """Tokens (B * draws, T, h), ``draws`` successive rows belonging to one condition."""
        if isinstance(keys, Condition):
            keys = self.keys(*keys)
        rows, T, h = x.shape
        B = keys.k.shape[0]
        q = self.q(x).view(B, rows // B * T, self.heads, -1).transpose(1, 2)
        out = functional.scaled_dot_product_attention(
            self.q_norm(q), keys.k, keys.v, attn_mask=keys.valid
        )
        return self.proj(out.transpose(1, 2).reshape(rows, T, h))


class FeedForward(nn.Module):
    """Linear, tanh-GELU, linear; the hidden layer is as wide as the input."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x), approximate="tanh"))


class Block(nn.Module):
    """Self-attention, cross-attention to one condition, feed-forward; all pre-normed."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = RmsNorm(width)
        self.attn = SelfAttention(width, heads)
        self.cross_attn = CrossAttention(width, heads)
        self.norm2 = RmsNorm(width)
        self.ffn = FeedForward(width, width)
        self.norm3 = RmsNorm(width)

    def forward(self, x: Tensor, keys: Attended) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.cross_attn(self.norm2(x), keys)
        return x + self.ffn(self.norm3(x))


class FinalLayer(nn.Module):
    """Norm and feed-forward to the action width."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm_final = RmsNorm(width)
        self.ffn_final = FeedForward(width, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn_final(self.norm_final(x))
