"""What a network is shown of a sample: the demo's own one and public ones differ in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from rdt.encoders.language import Language


class Shown(NamedTuple):
    """What a network is shown: ``moments`` and ``cameras`` of pictures of ``size`` pixels (0: as
    they are), ``horizon`` actions, instructions through ``language``."""

    moments: int
    cameras: int
    size: int
    horizon: int
    language: Language


def tokens_of(
    instructions: list[str], language: Language
) -> tuple[torch.Tensor, torch.Tensor, NDArray[np.int64]]:
    """Tokens (k + 1, L, ·) of the k different instructions and, last, of none, padded; which
    are valid (k + 1, L); and the one of each episode (episodes,)."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(instructions))}
    tokens = [language.tokens(text).float() for text in numbers]
    tokens.append(torch.zeros(1, tokens[0].shape[1]))
    longest = max(map(len, tokens))
    words = torch.stack([functional.pad(t, (0, 0, 0, longest - len(t))) for t in tokens])
    valid = torch.stack([torch.arange(longest) < len(t) for t in tokens])
    return words, valid, np.array([numbers[text] for text in instructions])
