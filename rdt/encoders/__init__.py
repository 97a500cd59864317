"""What turns pictures and words into condition tokens.

Trained with a small policy: :mod:`rdt.encoders.vision_tower` and
:mod:`rdt.encoders.words`. Of the public checkpoints: :mod:`rdt.encoders.siglip`
and :mod:`rdt.encoders.language`, both through transformers, which they import
only when they load something.
"""

from rdt.encoders.vision_tower import VisionConfig, VisionTower
from rdt.encoders.words import MAX_WORDS, WORD_WIDTH, language_tokens, word_vector

__all__ = [
    "MAX_WORDS",
    "WORD_WIDTH",
    "VisionConfig",
    "VisionTower",
    "language_tokens",
    "word_vector",
]
