"""The sizes there are, by name: the two published networks and a small one of their form.

All three eat what T5-v1.1-XXL and SigLIP so400m give of two moments and three
cameras; a checkpoint's own config.json always goes before a preset.
"""

from __future__ import annotations

from rdt.model.config import RdtConfig


def _preset(hidden_size: int, depth: int, num_heads: int) -> RdtConfig:
    return RdtConfig(
        action_dim=128,
        pred_horizon=64,
        rdt={
            "hidden_size": hidden_size,
            "depth": depth,
            "num_heads": num_heads,
            "cond_pos_embed_type": "multimodal",
        },
        lang_token_dim=4096,
        img_token_dim=1152,
        state_token_dim=128,
        max_lang_cond_len=1024,
        img_cond_len=2 * 3 * 729,
        lang_pos_embed_config=[["lang", -1024]],
        img_pos_embed_config=[["image", [2, 3, -729]]],
    )


PRESETS = {
    "tiny": _preset(hidden_size=64, depth=2, num_heads=4),
    "170m": _preset(hidden_size=1024, depth=14, num_heads=32),
    "1b": _preset(hidden_size=2048, depth=28, num_heads=32),
}
