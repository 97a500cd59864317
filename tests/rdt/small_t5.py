"""A random T5 of the v1.1 kind with a real sentencepiece vocabulary, as it lies on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

SENTENCES = ["Pick up the soup.", "Open the drawer.", "Turn on the stove.", "Put it on the plate."]


def save(folder: Path, width: int, seed: int = 0) -> Any:
    """Write config, .bin weights and spiece.model; returns the whole model."""
    import sentencepiece
    from transformers import T5Config, T5ForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_prefix=str(folder / "spiece"),
        vocab_size=60,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    settings = T5Config(
        vocab_size=256,
        d_model=width,
        d_kv=6,
        d_ff=32,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = T5ForConditionalGeneration(settings).eval()
    settings.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"})
    )
    return model
