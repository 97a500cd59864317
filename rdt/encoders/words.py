"""Words as fixed random vectors drawn from a hash of the word.

Enough to tell instructions apart and the same on every machine; a real text
encoder is not trained with a small policy.
"""

from __future__ import annotations

import hashlib
import math
import re

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from launcher.core.errors import RefusedError

WORD_WIDTH = 64
MAX_WORDS = 32


def word_vector(word: str) -> NDArray[np.float32]:
    """(64,) standard normal numbers that depend on the lower-case word only.

    Box–Muller over SHAKE-256 bits: NumPy does not promise that its own normal
    numbers stay the same from version to version.
    """
    bits = hashlib.shake_256(word.lower().encode()).digest(8 * WORD_WIDTH)
    uniform = (np.frombuffer(bits, "<u8").astype(np.float64) + 0.5) / 2.0**64
    radius = np.sqrt(-2 * np.log(uniform[::2]))
    angle = 2 * math.pi * uniform[1::2]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)]).astype(np.float32)


def language_tokens(instruction: str) -> tuple[Tensor, Tensor]:
    """Tokens (1, L, 64) float32 of the L words and which are valid, (1, L) bool (all).

    Raises RefusedError RDTL-D043 for an instruction with more than 32 words, RDTL-D020 for
    one without any.
    """
    words = re.findall(r"[^\W_]+", instruction)
    if not 0 < len(words) <= MAX_WORDS:
        raise RefusedError(
            "RDTL-D043" if words else "RDTL-D020",
            "an instruction does not fit the network",
            where=f"{instruction!r}: {len(words)} words, 1 to {MAX_WORDS} fit",
            why="the network has a position for each of so many words and no more",
            fix="name the task in fewer words, or leave it out (dataset.sets: tasks)",
        )
    tokens = torch.from_numpy(np.stack([word_vector(word) for word in words]))
    return tokens[None], torch.ones(1, len(words), dtype=torch.bool)


class Words:
    """The instruction's own words as its tokens; see :func:`language_tokens`."""

    def tokens(self, instruction: str) -> Tensor:
        """Tokens (L, 64) float32."""
        return language_tokens(instruction)[0][0]
