"""A SigLIP vision tower of any size, small enough to be trained with its policy.

Parameter names are those of ``transformers.SiglipVisionModel`` (a test holds both
equal). It is written here because importing that package costs more than twice as
much as importing torch, in every process of every array task.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class VisionConfig:
    """Sizes with the names of SiglipVisionConfig; image_size and patch_size in pixels."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    image_size: int
    patch_size: int

    @property
    def tokens(self) -> int:
        """Tokens of one picture."""
        return (self.image_size // self.patch_size) ** 2

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


class VisionAttention(nn.Module):
    """Multi-head self-attention over the patches of a picture."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        B, T, h = x.shape
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (layer(x).view(B, T, self.heads, -1).transpose(1, 2) for layer in projections)
        out = functional.scaled_dot_product_attention(q, k, v)
        return self.out_proj(out.transpose(1, 2).reshape(B, T, h))


class VisionLayer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        h = config.hidden_size
        self.layer_norm1 = nn.LayerNorm(h, eps=1e-6)
        self.self_attn = VisionAttention(h, config.num_attention_heads)
        self.layer_norm2 = nn.LayerNorm(h, eps=1e-6)
        self.mlp = nn.ModuleDict(
            {
                "fc1": nn.Linear(h, config.intermediate_size),
                "fc2": nn.Linear(config.intermediate_size, h),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        hidden = functional.gelu(self.mlp["fc1"](self.layer_norm2(x)), approximate="tanh")
        return x + self.mlp["fc2"](hidden)


class VisionTower(nn.Module):
    """Pictures (n, S, S, 3) uint8 to tokens (n, (S / patch)², hidden) float32."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        h, patch = config.hidden_size, config.patch_size
        self.config = config
        self.embeddings = nn.ModuleDict(
            {
                "patch_embedding": nn.Conv2d(3, h, patch, stride=patch),
                "position_embedding": nn.Embedding(config.tokens, h),
            }
        )
        self.encoder = nn.ModuleDict(
            {"layers": nn.ModuleList(VisionLayer(config) for _ in range(config.num_hidden_layers))}
        )
        self.post_layernorm = nn.LayerNorm(h, eps=1e-6)
        self.size = config.image_size
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        patch = self.embeddings["patch_embedding"]
        nn.init.normal_(patch.weight, std=(3 * self.config.patch_size**2) ** -0.5)
        nn.init.zeros_(patch.bias)
        nn.init.normal_(
            self.embeddings["position_embedding"].weight, std=self.config.hidden_size**-0.5
        )

    def forward(self, pictures: Tensor) -> Tensor:
        x = self._patches(pictures) + self.embeddings["position_embedding"].weight
        for layer in self.encoder["layers"]:
            x = layer(x)
        return self.post_layernorm(x)

    def _patches(self, pictures: Tensor) -> Tensor:
        """The patch convolution as one matrix product, several times faster on a CPU."""
        patch, layer = self.config.patch_size, self.embeddings["patch_embedding"]
        n, S, _, _ = pictures.shape
        x = (pictures.to(layer.weight.dtype) / 255 - 0.5) / 0.5
        x = x.view(n, S // patch, patch, S // patch, patch, 3).permute(0, 1, 3, 5, 2, 4)
        return functional.linear(
            x.reshape(n, self.config.tokens, -1), layer.weight.flatten(1), layer.bias
        )
