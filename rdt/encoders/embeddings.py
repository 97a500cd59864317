"""Sentences encoded beforehand, in the two layouts that are in use.

A file is either a bare tensor (L, width), named after its instruction, or a
dictionary with ``instruction`` and ``embeddings`` (1, L, width). LIBERO's file
names are those of its tasks: the instruction with underscores, in the long suites
with a scene in front. configs/assets/libero-t5-embeddings.yaml names a public set
with all 130 instructions of LIBERO; folders made by `rdtl data embed` have a list of
their files (:mod:`rdt.encoders.manifest`), and only what it lists is read.
"""

from __future__ import annotations

import difflib
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from launcher.core.errors import RefusedError
from rdt.encoders import manifest

SCENE = re.compile(r"^[a-z ]+ scene\d+ ")


def plain(instruction: str) -> str:
    """What instructions are compared by: lower case, single spaces, no scene, no full stop.

    ``KITCHEN_SCENE3_turn_on_the_stove`` and ``Turn on the stove.`` are the same.
    """
    words = " ".join(instruction.replace("_", " ").lower().split())
    return SCENE.sub("", words).rstrip(" .")


class Embeddings:
    """All sentences of a folder (searched deeply for ``*.pt``) or of one file, in memory."""

    def __init__(self, source: Path, width: int) -> None:
        """Read and check every file: tokens must be ``width`` wide and finite.

        Raises RefusedError RDTL-D021 naming the file.
        """
        self.source = source
        self._sentences: dict[str, Tensor] = {}
        for path in _files(source):
            instruction, tokens = _read(path, width)
            known = self._sentences.setdefault(instruction, tokens)
            if not torch.equal(known, tokens):
                raise _unfit(path, f"another file has other numbers for {instruction!r}")
        if not self._sentences:
            raise _unfit(source, "no file *.pt is in it")

    def tokens(self, instruction: str) -> Tensor:
        """Tokens (L, width) in the dtype of the file.

        Raises RefusedError RDTL-D020 for an instruction that no file has, with the nearest ones.
        """
        key = plain(instruction)
        if key not in self._sentences:
            near = difflib.get_close_matches(key, self._sentences, n=3)
            raise RefusedError(
                "RDTL-D020",
                f"no embedding of the instruction {instruction!r}",
                where=f"{self.source}: {len(self._sentences)} instructions"
                + (f"; near ones: {'; '.join(near)}" if near else ", none of them near"),
                why="the policy would be told to do something else, or nothing",
                fix="add the sentence (rdtl data embed), or name a text encoder instead",
            )
        return self._sentences[key]


def _files(source: Path) -> list[Path]:
    """The files to read: the one named, those on the folder's list, or all in it."""
    if source.is_file():
        return [source]
    listed = manifest.read(source)
    if listed is None:
        return sorted(source.rglob("*.pt"))
    return [listed.path(source, instruction) for instruction in listed.sentences]


def _read(path: Path, width: int) -> tuple[str, Tensor]:
    """Instruction and tokens (L, width) of one file."""
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise _unfit(path, f"it cannot be read safely: {str(error).splitlines()[0]}") from error
    if isinstance(content, dict):
        instruction, tokens = str(content.get("instruction", "")), content.get("embeddings")
        if isinstance(tokens, Tensor) and tokens.ndim == 3 and len(tokens) == 1:
            tokens = tokens[0]
    else:
        instruction, tokens = path.stem, content
    if not plain(instruction):
        raise _unfit(path, "it does not say of which instruction it is")
    if not isinstance(tokens, Tensor) or not tokens.is_floating_point():
        raise _unfit(path, f"it holds {type(tokens).__name__}, no tensor of numbers")
    if tokens.ndim != 2 or not len(tokens) or tokens.shape[1] != width:
        raise _unfit(path, f"shape {tuple(tokens.shape)}, expected (L, {width}) or (1, L, {width})")
    if not torch.isfinite(tokens).all():
        raise _unfit(path, "NaN or infinite numbers in it")
    return plain(instruction), tokens


def _unfit(path: Path, reason: str) -> RefusedError:
    return RefusedError(
        "RDTL-D021",
        "a language embedding does not fit the network",
        where=f"{path}: {reason}",
        why="only the hidden states of the text encoder that the network was trained with mean "
        "anything to it",
        fix="take embeddings of T5-v1.1-XXL (4096 wide) for a public checkpoint; see "
        "configs/assets/libero-t5-embeddings.yaml for LIBERO's",
    )
