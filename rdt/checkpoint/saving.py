"""Writing checkpoints: every folder appears whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from launcher.core import files
from launcher.core.errors import UsageError
from rdt.checkpoint.opening import VISION, dtype_text
from rdt.checkpoint.places import CONFIG, WEIGHTS
from rdt.checkpoint.tensors import Stored
from rdt.model.rdt import Rdt
from rdt.spec.card import Card, weights_sha256

Result = TypeVar("Result")


def save(folder: Path, network: Rdt, card: Card) -> Card:
    """Write config.json, model.safetensors and card.json; the card as it was written.

    Type and digest of the weights are filled in here. Raises UsageError RDTL-U027 when
    ``folder`` exists.
    """
    data = network.config.to_dict()
    if hasattr(network, VISION):
        data[VISION] = network.vision.config.to_dict()
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    return publish(folder, lambda inside: write_policy(inside, data, state, card))


def write_policy(
    folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], card: Card
) -> Card:
    """Fill ``folder`` with config.json, model.safetensors and card.json; returns that card."""
    write_tensors(folder / WEIGHTS, weights)
    files.write_json(folder / CONFIG, dict(config))
    stored = [Stored(tuple(tensor.shape), tensor.dtype) for tensor in weights.values()]
    digest = weights_sha256(folder / WEIGHTS)
    card = replace(card, dtype=dtype_text(stored), weights_sha256=digest)
    card.write(folder)
    return card


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a .safetensors file, or any other name as `torch.save` does, and force it to disk.

    Raises OSError where the file system failed; neither library does that by itself.
    """
    try:
        if path.suffix == ".safetensors":
            save_file(dict(tensors), path, metadata={"format": "pt"})
        else:
            with path.open("wb") as file:
                torch.save(dict(tensors), file)
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise
    except RuntimeError as error:  # torch hides what its file object raised
        if isinstance(error.__context__, OSError):
            raise OSError(*error.__context__.args, str(path)) from error
        raise
    files.sync_file(path)


def publish(folder: Path, write: Callable[[Path], Result]) -> Result:
    """Let ``write`` fill a folder beside ``folder`` and give it that name when it is whole.

    Raises UsageError RDTL-U027 when ``folder`` exists.
    """
    if folder.exists() or folder.is_symlink():  # exists() is False for a dangling one
        raise _exists(folder)
    with files.whole_folder(folder) as temporary:
        return write(temporary)


def _exists(folder: Path) -> UsageError:
    return UsageError(
        "RDTL-U027",
        "the output folder exists already",
        where=str(folder),
        why="a checkpoint is never overwritten",
        fix="name a folder that does not exist",
    )
