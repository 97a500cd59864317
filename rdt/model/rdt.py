"""RDT as its checkpoints know it: three adaptors around the transformer, and sampling.

One mask of used slots (B, 1, 128) float 0/1 stands beside the state and beside
every action token, and multiplies the sampled chunk at the end: the reference has
one mask for all three uses. Which slots it holds is the contract's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from launcher.core.errors import RefusedError
from rdt import diffusion
from rdt.model.blocks import Attended
from rdt.model.config import RdtConfig
from rdt.model.transformer import Transformer


def adaptor(kind: str, width_in: int, width: int) -> nn.Module:
    """`linear`, or `mlpNx_gelu`: N linear layers with tanh-GELU between them.

    Raises ValueError for another name.
    """
    if kind == "linear":
        return nn.Linear(width_in, width)
    match = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    if match is None:
        raise ValueError(f"adaptor {kind!r} is not known: use linear or mlpNx_gelu")
    layers: list[nn.Module] = [nn.Linear(width_in, width)]
    for _ in range(int(match[1]) - 1):
        layers += [nn.GELU(approximate="tanh"), nn.Linear(width, width)]
    return nn.Sequential(*layers)


class Rdt(nn.Module):
    """The network of a checkpoint; keys `model.*`, `lang_adaptor.*`, `img_adaptor.*`, `state_…`.

    ``compiled``: sample with kernels that torch compiles for these shapes and, on a GPU,
    replays as CUDA graphs. The first chunk of each shape then takes minutes.
    """

    def __init__(self, config: RdtConfig) -> None:
        super().__init__()
        h = config.hidden_size
        self.config = config
        self.compiled = False
        self._compiled_denoise: Callable[..., Tensor] | None = None
        self.model = Transformer(config)
        self.lang_adaptor = adaptor(config.lang_adaptor, config.lang_token_dim, h)
        self.img_adaptor = adaptor(config.img_adaptor, config.img_token_dim, h)
        self.state_adaptor = adaptor(config.state_adaptor, 2 * config.state_token_dim, h)

    @property
    def checkpointing(self) -> bool:
        """Whether training computes blocks twice instead of keeping what is inside them."""
        return self.model.checkpointing

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        self.model.checkpointing = on

    @property
    def picture_slots(self) -> int:
        """Pictures that the network looks at, moment by moment, camera by camera."""
        return self.config.picture_slots

    @property
    def picture_tokens(self) -> int:
        """Tokens of one picture."""
        return self.config.picture_tokens

    def keys(
        self,
        lang_tokens: Tensor,
        lang_valid: Tensor | None,
        img_tokens: Tensor,
        img_valid: Tensor | None = None,
    ) -> list[Attended]:
        """What no diffusion step changes: attention keys of language (B, L, ·) and pictures
        (B, img_cond_len, ·), block by block.

        Masks (B, L) and (B, img_cond_len) are bool, True = valid; None: all are. Raises
        what :meth:`lang_keys`, :meth:`adapt_pictures` and :meth:`img_keys` raise.
        """
        _require_length(img_tokens, self.config.img_cond_len)
        adapted = self.adapt_pictures(img_tokens)
        slots = range(self.picture_slots)
        pictures = adapted.unflatten(1, (len(slots), self.picture_tokens))
        both = (self.lang_keys(lang_tokens, lang_valid), self.img_keys(pictures, slots, img_valid))
        return [both[index % 2][index // 2] for index in range(self.config.depth)]

    def lang_keys(self, tokens: Tensor, valid: Tensor | None) -> list[Attended]:
        """Keys of the even blocks, of language tokens (B, L, ·); ``valid`` (B, L) bool or None.

        Raises RefusedError RDTL-D021 (tokens of another width), RDTL-D043 (too many),
        RDTL-D022 (mask not bool).
        """
        longest = self.config.max_lang_cond_len
        _require_width(tokens, "lang_token_dim", self.config.lang_token_dim, "RDTL-D021")
        if tokens.shape[1] > longest:
            raise RefusedError(
                "RDTL-D043",
                "an instruction is too long for the network",
                where=f"{tokens.shape[1]} tokens; config.json: max_lang_cond_len = {longest}",
                why="there are no positions for more, and cut off instructions mislead",
                fix=f"shorten the instruction to {longest} tokens",
            )
        return self.model.lang_keys(self.lang_adaptor(tokens), valid)

    def adapt_pictures(self, features: Tensor) -> Tensor:
        """Features (..., tokens, ·) of the vision encoder to (..., tokens, h), without positions.

        Raises RefusedError RDTL-T021 for features of another width.
        """
        _require_width(features, "img_token_dim", self.config.img_token_dim, "RDTL-T021")
        return self.img_adaptor(features)

    def img_keys(
        self, adapted: Tensor, slots: Sequence[int], valid: Tensor | None = None
    ) -> list[Attended]:
        """Keys of the odd blocks for some picture slots, of adapted pictures (B, slots, tokens, h).

        Keys lie in the order of ``slots``; ``valid`` (B, slots * tokens) bool or None.
        Raises RefusedError RDTL-T021 (another number of tokens), RDTL-D022 (mask not bool).
        """
        _require_length(adapted.flatten(1, 2), len(slots) * self.picture_tokens)
        return self.model.img_keys(adapted, slots, valid)

    def denoise(
        self,
        state: Tensor,
        noisy: Tensor,
        mask: Tensor,
        freq: Tensor,
        t: Tensor,
        keys: Sequence[Attended],
    ) -> Tensor:
        """What the network says (B, H, 128): the clean chunk, or its noise (`epsilon`).

        state (B, 1, 128), noisy (B, H, 128), mask (B, 1, 128), freq (B,) Hz, t (B,) or (1,).
        """
        tokens = torch.cat([state, noisy], dim=1)
        tokens = torch.cat([tokens, mask.expand(-1, tokens.shape[1], -1)], dim=2)
        return self.model(self.state_adaptor(tokens), freq, t, keys)

    @torch.inference_mode()
    def sample(
        self,
        state: Tensor,
        mask: Tensor,
        freq: Tensor,
        keys: Sequence[Attended],
        noise: Tensor,
        alphas: Tensor,
    ) -> Tensor:
        """A chunk of actions (B, H, 128), zero outside the mask, from ``noise`` of that shape.

        The noise is not masked: in training it is not either.
        """
        network = self._replay if self.compiled else self.denoise

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            return network(state, x, mask, freq, t, keys)

        config = self.config
        chunk = diffusion.sample(
            denoise, noise, alphas, config.sampling_steps, config.prediction_type
        )
        return chunk * mask

    def _replay(self, *arguments: Tensor | Sequence[Attended]) -> Tensor:
        """:meth:`denoise`, compiled; the result is copied, for the next replay writes over it."""
        if self._compiled_denoise is None:
            self._compiled_denoise = torch.compile(self.denoise, mode="reduce-overhead")
        torch.compiler.cudagraph_mark_step_begin()
        return self._compiled_denoise(*arguments).clone()


def empty(config: RdtConfig) -> Rdt:
    """A network without memory for its weights, to be filled by
    ``load_state_dict(..., assign=True)``; all of it is in the state dict."""
    with torch.device("meta"):
        return Rdt(config)


def _require_width(tokens: Tensor, field: str, width: int, code: str) -> None:
    if tokens.shape[-1] != width:
        raise RefusedError(
            code,
            "condition tokens come from another encoder than the network's",
            where=f"tokens of width {tokens.shape[-1]}; config.json: {field} = {width}",
            why="the adaptor of the checkpoint has weights for that width only",
            fix="use the encoder that the network was trained with",
        )


def _require_length(tokens: Tensor, length: int) -> None:
    if tokens.shape[1] != length:
        raise RefusedError(
            "RDTL-T021",
            "the pictures do not fill the network's picture slots",
            where=f"{tokens.shape[1]} picture tokens, {length} expected; config.json: "
            "img_cond_len, img_pos_embed_config",
            why="every token has its own position: another number of moments, cameras or patches "
            "is another network",
            fix="give as many moments and cameras as config.json says, absent ones as background",
        )
