"""Instructions as tokens: T5 through transformers, or sentences encoded beforehand.

T5-v1.1-XXL needs some 10 GB in bf16 for sentences of a dozen words. Whoever only
evaluates known instructions uses a set of embeddings (:mod:`rdt.encoders.embeddings`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from launcher.core.errors import RdtlError
from rdt.encoders import pretrained
from rdt.encoders.embeddings import Embeddings

PUBLIC = "google/t5-v1_1-xxl"


class Language(Protocol):
    """Whatever turns an instruction into tokens; the same text always gives the same numbers."""

    def tokens(self, instruction: str) -> Tensor:
        """Tokens (L, width) of ``instruction``."""


def load(
    source: str | Path, width: int, dtype: torch.dtype, device: str | torch.device
) -> Language:
    """Tokens ``width`` wide from ``source``: embeddings (folder or .pt), T5 (folder or hub id).

    Raises RefusedError RDTL-D021 for embeddings that do not fit, RdtlError RDTL-T020
    for an encoder that does not load.
    """
    path = Path(source)
    if path.suffix == ".pt" or (path.is_dir() and not (path / "config.json").exists()):
        return Embeddings(path, width)
    return load_t5(source, dtype, device)


class T5:
    """The encoder half of T5 with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @torch.inference_mode()
    def tokens(self, instruction: str) -> Tensor:
        """Tokens (L, width) of the instruction as a sentence, its end token among them.

        Nothing is cut off: a policy refuses what is too long for its network.
        """
        ids = self.tokenizer(sentence(instruction), truncation=False, return_tensors="pt")
        return self.model(ids["input_ids"].to(self.model.device)).last_hidden_state[0]


def sentence(instruction: str) -> str:
    """The instruction as pre-training wrote it: a capital in front, a full stop at the end."""
    text = " ".join(instruction.replace("_", " ").split())
    return text[:1].upper() + text[1:].rstrip(" .") + "."


def load_t5(source: str | Path, dtype: torch.dtype, device: str | torch.device) -> T5:
    """T5 from a folder or a hub id; the decoder of a whole checkpoint is left out.

    Raises RdtlError RDTL-T020 when model or tokenizer does not load.
    """
    from transformers import AutoTokenizer, T5EncoderModel

    model = pretrained.load(T5EncoderModel, source, dtype)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, ImportError) as error:
        raise _no_words(source, f"{type(error).__name__}: {error}") from error
    # Without a vocabulary file transformers makes a tokenizer to which every word is unknown.
    if tokenizer.unk_token_id in tokenizer("the")["input_ids"]:
        raise _no_words(source, 'it does not know the word "the"')
    return T5(model.to(device), tokenizer)


def _no_words(source: str | Path, reason: str) -> RdtlError:
    return RdtlError(
        "RDTL-T020",
        "the tokenizer of a text encoder does not load",
        where=f"{source}: {reason}",
        why="other token numbers are other words",
        fix="name a folder that also holds spiece.model or tokenizer.json",
    )
