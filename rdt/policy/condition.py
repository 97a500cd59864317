"""Attention keys of a batch: language and pictures, each part computed once, in one place.

The keys of all rows lie in one buffer per block, which lives as long as batches keep
their shape. With d bytes a number a row takes ``2 · d · hidden · (odd blocks · picture
tokens + even blocks · language tokens)``: 502 MB for the pictures of rdt-1b in bf16.
Slots of absent cameras are background in every row and every query; their keys are
computed once per process.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rdt.model.blocks import Keys
from rdt.model.rdt import Rdt
from rdt.policy.sight import Sight


class Conditions:
    """Keys of batches of one shape after another.

    ``together``: what many rows need is computed in one call, else row by row, and then
    the keys of a row do not depend on its mates.
    """

    def __init__(self, network: Rdt, sight: Sight, absent: tuple[int, ...], together: bool) -> None:
        self.network, self.sight = network, sight
        self.absent, self.together = absent, together
        self._background: list[Keys] | None = None
        self._buffers: list[Keys] = []

    def keys(
        self, rows: int, length: int, language: Sequence[Tensor], seen: Sequence[dict[int, Tensor]]
    ) -> list[Keys]:
        """Keys of ``rows`` rows, of which the first ones are filled and the others padding.

        ``language`` holds tokens (L, width) with L <= ``length`` of each filled row,
        ``seen`` the adapted pictures (tokens, h) by slot. The result is valid until
        the next call.
        """
        self._shape(rows, length)
        count = len(language)
        for part in [range(count)] if self.together else [range(i, i + 1) for i in range(count)]:
            self._write_language(part, length, language)
            for slot in seen[part[0]]:
                self._write_picture(part, slot, torch.stack([seen[row][slot] for row in part]))
        return self._buffers

    def _write_language(self, part: range, length: int, language: Sequence[Tensor]) -> None:
        like = language[part[0]]
        tokens = like.new_zeros(len(part), length, like.shape[1])
        valid = torch.zeros(len(part), length, dtype=torch.bool, device=like.device)
        for place, row in enumerate(part):
            tokens[place, : len(language[row])] = language[row]
            valid[place, : len(language[row])] = True
        chosen = slice(part.start, part.stop)
        computed = self.network.lang_keys(tokens, valid)
        for buffer, keys in zip(self._buffers[::2], computed, strict=True):
            buffer.k[chosen], buffer.v[chosen], buffer.valid[chosen] = keys.k, keys.v, keys.valid

    def _write_picture(self, part: range, slot: int, adapted: Tensor) -> None:
        keys = self.network.img_keys(adapted[:, None], [slot])
        self._place(slice(part.start, part.stop), [slot], keys)

    def _place(self, rows: slice, slots: Sequence[int], computed: list[Keys]) -> None:
        """Copy the keys of ``slots``, which follow one another, to their places."""
        n = self.network.picture_tokens
        for buffer, keys in zip(self._buffers[1::2], computed, strict=True):
            for place, slot in enumerate(slots):
                here, there = slice(slot * n, slot * n + n), slice(place * n, place * n + n)
                buffer.k[rows, :, here] = keys.k[:, :, there]
                buffer.v[rows, :, here] = keys.v[:, :, there]

    def _shape(self, rows: int, length: int) -> None:
        """Make the buffers (rows, heads, tokens, d) unless the last batch had this shape."""
        if self._buffers and self._buffers[0].k.shape[::2] == (rows, length):
            return
        network, config = self.network, self.network.config
        like = next(network.parameters())
        heads, width = config.num_heads, config.hidden_size // config.num_heads
        self._buffers = []  # freed before the new ones are made
        for block in range(config.depth):
            tokens = config.img_cond_len if block % 2 else length
            k, v = (like.new_zeros(rows, heads, tokens, width) for _ in range(2))
            valid = None if block % 2 else k.new_ones(rows, 1, 1, length, dtype=torch.bool)
            self._buffers.append(Keys(k, v, valid))
        if self.absent:
            self._place(slice(rows), self.absent, self._absent_keys())

    def _absent_keys(self) -> list[Keys]:
        if self._background is None:
            grey = self.sight.background().expand(1, len(self.absent), -1, -1)
            self._background = self.network.img_keys(grey, self.absent)
        return self._background
