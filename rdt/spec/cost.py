"""How many operations a sample costs in training: arithmetic over sizes, for predictions.

A multiplication with its addition counts as two. Left out is what is far below a
hundredth: norms, activations, embeddings of time and rate, the optimizer.
"""

from __future__ import annotations

from typing import NamedTuple

WORDS = 32
"""Tokens of an instruction; few beside the pictures' whatever its length."""
UNIFIED = 128


class Network(NamedTuple):
    """Sizes of an RDT: blocks, tokens of ``pictures`` with ``patches`` each, and their widths."""

    hidden: int
    depth: int
    horizon: int = 64
    pictures: int = 6
    patches: int = 729
    words_width: int = 4096
    pictures_width: int = 1152


PUBLISHED = {
    "robotics-diffusion-transformer/rdt-1b": Network(2048, 28),
    "robotics-diffusion-transformer/rdt-170m": Network(1024, 14),
}


def adaptors(net: Network) -> float:
    """Words and pictures to the width of the network, once a sample."""
    h, tokens = net.hidden, net.pictures * net.patches
    return 2.0 * (tokens * (net.pictures_width + h) + WORDS * (net.words_width + h)) * h


def keys(net: Network) -> float:
    """Keys and values of all blocks, once a sample: even blocks of words, odd ones of pictures."""
    tokens = (net.depth // 2) * net.pictures * net.patches + (net.depth + 1) // 2 * WORDS
    return 4.0 * tokens * net.hidden**2


def denoise(net: Network) -> float:
    """One pass of state and noisy actions through the blocks, once a noise draw."""
    h, tokens = net.hidden, net.horizon + 3
    seen = (net.depth // 2) * net.pictures * net.patches + (net.depth + 1) // 2 * WORDS
    linear = 2.0 * tokens * net.depth * 8 * h**2
    attention = 4.0 * tokens * h * (net.depth * tokens + seen)
    ends = 2.0 * tokens * (2 * UNIFIED * h + 2 * h**2) + 2.0 * net.horizon * (h**2 + UNIFIED * h)
    return linear + attention + ends


def siglip(pictures: int) -> float:
    """SigLIP so400m on pictures of 384 pixels, forward only."""
    width, inner, depth, tokens = 1152, 4304, 27, 729
    layer = 2.0 * tokens * (4 * width**2 + 2 * width * inner) + 4.0 * tokens**2 * width
    return pictures * depth * layer


def training(net: Network, draws: int, *, adapter: bool, recomputed: bool) -> float:
    """Operations for a sample: frozen SigLIP, and the network forward and backward.

    ``adapter``: LoRA, which needs the gradients of what flows but not of the weights;
    ``recomputed``: gradient checkpointing, which computes forward twice.
    """
    forward = adaptors(net) + keys(net) + draws * denoise(net)
    passes = 1 + (1 if adapter else 2) + (1 if recomputed else 0)
    return siglip(net.pictures) + passes * forward
