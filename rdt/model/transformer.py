"""The RDT transformer: diffusion over chunks of actions, conditioned on language and pictures.

Tokens are [timestep, control frequency, state, action 0 … H-1]; blocks look at
language (even) and pictures (odd) in turn. Parameter names and shapes are the
reference's, so its checkpoints load strictly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rdt.model.blocks import Attended, Block, Condition, FinalLayer, require_bool
from rdt.model.config import RdtConfig
from rdt.model.embeddings import NumberEmbedder, condition_table, token_table


class Transformer(nn.Module):
    """`model.*` of a checkpoint; :class:`rdt.model.rdt.Rdt` puts the adaptors around it.

    ``checkpointing``: while gradients are wanted, keep of each block its input only
    and compute it again in the backward pass, keys included.
    """

    def __init__(self, config: RdtConfig) -> None:
        super().__init__()
        h, heads = config.hidden_size, config.num_heads
        self.checkpointing = False
        self.horizon = config.pred_horizon
        self.t_embedder = NumberEmbedder(h)
        self.freq_embedder = NumberEmbedder(h)
        self.x_pos_embed = nn.Parameter(token_table(config.pred_horizon, h))
        self.lang_cond_pos_embed = nn.Parameter(
            condition_table(config.lang_pos_embed_config, config.max_lang_cond_len, h)
        )
        self.img_cond_pos_embed = nn.Parameter(
            condition_table(config.img_pos_embed_config, config.img_cond_len, h)
        )
        self.blocks = nn.ModuleList(Block(h, heads) for _ in range(config.depth))
        self.final_layer = FinalLayer(h, config.action_dim)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for embedder in (self.t_embedder, self.freq_embedder):
            nn.init.normal_(embedder.mlp[0].weight, std=0.02)
            nn.init.normal_(embedder.mlp[2].weight, std=0.02)
        # A fresh model predicts 0, the mean of the actions it will be asked for.
        nn.init.zeros_(self.final_layer.ffn_final.fc2.weight)

    def lang_keys(self, lang: Tensor, valid: Tensor | None) -> list[Attended]:
        """For the even blocks, of adapted language (B, L, h); ``valid`` (B, L) bool or None."""
        require_bool(valid, "language")
        lang = lang + self.lang_cond_pos_embed[:, : lang.shape[1]]
        return self._keys(Condition(lang, valid), self.blocks[::2])

    def img_keys(self, img: Tensor, slots: Sequence[int], valid: Tensor | None) -> list[Attended]:
        """For the odd blocks, of adapted pictures (B, slots, tokens, h) in those ``slots``.

        ``valid`` (B, slots * tokens) bool or None.
        """
        require_bool(valid, "picture")
        tokens, h = img.shape[2:]
        table = self.img_cond_pos_embed.view(-1, tokens, h)[list(slots)]
        return self._keys(Condition((img + table).flatten(1, 2), valid), self.blocks[1::2])

    def _keys(self, condition: Condition, blocks: Iterable[Block]) -> list[Attended]:
        if self.checkpointing and torch.is_grad_enabled():
            return [condition for _ in blocks]
        return [block.cross_attn.keys(*condition) for block in blocks]

    def forward(self, x: Tensor, freq: Tensor, t: Tensor, keys: Sequence[Attended]) -> Tensor:
        """State and action tokens (B, 1 + H, h), freq (B,) Hz, t (B,) or (1,) → (B, H, action).

        B may be a multiple of the batch of ``keys``.
        """
        step = self.t_embedder(t)[:, None].expand(x.shape[0], -1, -1)
        rate = self.freq_embedder(freq)[:, None].expand(x.shape[0], -1, -1)
        x = torch.cat([step, rate, x], dim=1) + self.x_pos_embed
        again = self.checkpointing and torch.is_grad_enabled()
        for block, attended in zip(self.blocks, keys, strict=True):
            x = checkpoint(block, x, attended, use_reentrant=False) if again else block(x, attended)
        return self.final_layer(x)[:, -self.horizon :]
