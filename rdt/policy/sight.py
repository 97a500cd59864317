"""Pictures to the network's own tokens, each picture once.

A picture is known by its content: a frame that is this query's present and the next
one's past is not encoded again, and neither is a scene that stands still. The grey
background is encoded once and never forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rdt.encoders import pictures
from rdt.encoders.pictures import Picture
from rdt.model.rdt import Rdt
from rdt.policy.memory import Memory

REMEMBERED = 64
"""Pictures whose tokens are kept; in bf16 one takes 3 MB with rdt-1b."""


class Vision(Protocol):
    """Pictures (n, size, size, 3) uint8 on any device to tokens (n, tokens, width)."""

    size: int

    def __call__(self, pictures: Tensor) -> Tensor: ...


class Sight:
    """Encodes and adapts; ``passes`` counts pictures that went through the encoder.

    ``together``: what is new in a batch goes through in one call. Otherwise each
    picture goes alone, and then its numbers do not depend on the others.
    """

    def __init__(self, network: Rdt, vision: Vision, rotation: str, together: bool) -> None:
        self.network, self.vision = network, vision
        self.rotation, self.together = rotation, together
        self.passes = 0
        self._known: Memory[Tensor] = Memory(REMEMBERED)
        self._grey: Tensor | None = None

    def background(self) -> Tensor:
        """Tokens (tokens, h) of the grey picture."""
        if self._grey is None:
            (self._grey,) = self._encode([pictures.grey(self.vision.size)])
        return self._grey

    def tokens(self, shown: Sequence[dict[int, Picture | None]]) -> list[dict[int, Tensor]]:
        """Tokens (tokens, h) of every slot of every observation; None is background."""
        named = [{slot: _name(p) for slot, p in slots.items()} for slots in shown]
        wanted = {
            name: picture
            for names, slots in zip(named, shown, strict=True)
            for name, picture in zip(names.values(), slots.values(), strict=True)
            if picture is not None
        }
        found = {name: self._known.get(name) for name in wanted}
        new = [name for name, tokens in found.items() if tokens is None]
        encoded = self._encode([self._prepared(wanted[name]) for name in new])
        self._known.limit = max(REMEMBERED, 2 * len(wanted))
        for name, tokens in zip(new, encoded, strict=True):
            self._known.put(name, tokens)
            found[name] = tokens
        found[b""] = self.background() if any(b"" in n.values() for n in named) else None
        return [{slot: found[name] for slot, name in names.items()} for names in named]

    def _prepared(self, picture: Picture) -> Picture:
        turned = pictures.rotated(picture, self.rotation)
        return pictures.fitted(turned, self.vision.size)

    def _encode(self, prepared: list[Picture]) -> list[Tensor]:
        """One call per batch: a batch is all there are, or a single picture."""
        batches = [prepared] if self.together else [[picture] for picture in prepared]
        out: list[Tensor] = []
        for batch in filter(None, batches):
            self.passes += len(batch)
            parameter = next(self.network.parameters())
            features = self.vision(torch.from_numpy(np.stack(batch)).to(parameter.device))
            adapted = self.network.adapt_pictures(features.to(parameter.dtype))
            out += [row.clone() for row in adapted]  # a view would keep the whole batch alive
        return out


def _name(picture: Picture | None) -> bytes:
    """A digest of content and shape; empty for the background."""
    if picture is None:
        return b""
    digest = hashlib.blake2b(repr(picture.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(picture).tobytes())
    return digest.digest()
