"""What training needs beside the network: a batch, the loss, and pictures as tokens.

Shapes: B samples, H horizon, p pictures of a sample (moments times cameras).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rdt import diffusion
from rdt.model.blocks import Attended
from rdt.model.config import RdtConfig
from rdt.model.rdt import Rdt


class Batch(NamedTuple):
    """One micro batch of one rank; ``draws`` noise draws per sample.

    pictures (B, p, S, S, 3) uint8 raw; words (B, L, ·) and word_valid (B, L)
    bool, or (1, …), one instruction for all; state (B, 1, 128) z-scored; mask (B, 1, 128) and
    freq (B,) Hz, zeros where the network is not told; actions (B, H, 128); weight (B, H):
    share of each step in the loss, 0 for padding; slots (128,): share of each slot in a
    step's error; noise (B * draws, H, 128) and t (B * draws,), the draws of one sample in
    succession.
    """

    pictures: Tensor
    words: Tensor
    word_valid: Tensor
    state: Tensor
    mask: Tensor
    freq: Tensor
    actions: Tensor
    weight: Tensor
    slots: Tensor
    noise: Tensor
    t: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        return Batch(*(tensor.to(device) for tensor in self))


class Trainable(Rdt):
    """`forward` is the training loss; :meth:`see` says what pictures are to the network."""

    alphas: Tensor

    def __init__(self, config: RdtConfig) -> None:
        super().__init__(config)
        # Constants, not weights: a buffer only to follow the module to its device.
        self.register_buffer("alphas", diffusion.alphas_cumprod(), persistent=False)

    def see(self, pictures: Tensor) -> Tensor:
        """Pictures (n, S, S, 3) uint8 to tokens (n, tokens, width)."""
        raise NotImplementedError  # abstract: PolicyNetwork and FineTuned each see in their way

    def condition(self, pictures: Tensor, words: Tensor, word_valid: Tensor) -> list[Attended]:
        """Attention keys of (B, p, S, S, 3) uint8 pictures and (B or 1, L, ·) words."""
        tokens = self.see(pictures.flatten(0, 1))
        return self.keys(words, word_valid, tokens.reshape(len(pictures), -1, tokens.shape[-1]))

    def forward(self, batch: Batch, sampled: bool = False) -> Tensor:
        """The squared error, summed with the weights of steps and slots.

        ``sampled``: instead a chunk (B, H, 128) of each sample, from its first noise. Both
        are here because ZeRO 3 gathers weights only inside of this call.
        """
        keys = self.condition(batch.pictures, batch.words, batch.word_valid)
        draws = len(batch.noise) // len(batch.actions)
        if sampled:
            given = (batch.state, batch.mask, batch.freq)
            return self.sample(*given, keys, batch.noise[::draws], self.alphas)
        clean = batch.actions.repeat_interleave(draws, dim=0)
        noisy = diffusion.add_noise(self.alphas, clean, batch.noise, batch.t)
        told = (batch.state, batch.mask, batch.freq)
        state, mask, freq = (part.repeat_interleave(draws, dim=0) for part in told)
        predicted = self.denoise(state, noisy, mask, freq, batch.t, keys)
        wanted = diffusion.target(self.config.prediction_type, clean, batch.noise)
        error = ((predicted - wanted).square() * batch.slots).sum(dim=-1)
        return (error * batch.weight.repeat_interleave(draws, dim=0)).sum() / draws


class FineTuned(Trainable):
    """A network that sees through a frozen encoder, which is no part of it.

    Takes over the weights of ``network`` without copying them. ``encoder`` is called as
    :meth:`Trainable.see` is.
    """

    def __init__(self, network: Rdt, encoder: Callable[[Tensor], Tensor]) -> None:
        with torch.device("meta"):
            super().__init__(network.config)
        self.load_state_dict(network.state_dict(), assign=True)
        self.alphas = diffusion.alphas_cumprod()
        self._encoder = encoder

    def see(self, pictures: Tensor) -> Tensor:
        """Tokens that no gradient goes through; a copy, for encoders return inference tensors."""
        return self._encoder(pictures).clone()
