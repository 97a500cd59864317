"""Files of tensors, read without running anything that they contain.

A ``.bin`` or ``.pt`` file is a pickle, and a pickle is a program. It is read by
torch's restricted reader only, which builds tensors and plain containers and
nothing else; what asks for more is refused by name (RDTL-T032). The weights that
DeepSpeed saves need no more. Everything is mapped, not read: looking at names and
shapes costs nothing, and the pages of a file leave the memory with the mapping.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from launcher.core.errors import RdtlError, RefusedError

MODULE = "module"
"""Where DeepSpeed keeps the weights in its files."""
ARCHIVE = b"PK\x03\x04"
"""How every file of torch.save begins."""
WINDOW_BYTES = 64 * 2**20
"""How much of a file is mapped at once while its tensors are copied."""


REAL = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""Types whose numbers are weights as they stand, without scales or tables."""


class Stored(NamedTuple):
    """Shape and type of a tensor in a file."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        return torch.Size(self.shape).numel()

    @property
    def bytes(self) -> int:
        return self.numel * self.dtype.itemsize


def header(path: Path) -> dict[str, Stored]:
    """Name, shape and type of every tensor of a file; raises as :func:`mapped`."""
    return {name: Stored(tuple(t.shape), t.dtype) for name, t in mapped(path).items()}


def windows(path: Path, names: Mapping[str, Stored]) -> Iterator[dict[str, Tensor]]:
    """The tensors ``names`` of a file, mapped, a few at a time.

    Whoever copies them and lets go holds no more than `WINDOW_BYTES` of the file (or one
    tensor) besides the copies.
    """
    window: list[str] = []
    size = 0
    for name, stored in names.items():
        if window and size + stored.bytes > WINDOW_BYTES:
            yield _select(path, window)
            window, size = [], 0
        window.append(name)
        size += stored.bytes
    if window:
        yield _select(path, window)


def _select(path: Path, names: list[str]) -> dict[str, Tensor]:
    tensors = mapped(path)
    return {name: tensors[name] for name in names}


def mapped(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors, .bin or .pt file, mapped: do not write to them.

    Of a DeepSpeed file, the weights alone. Raises RdtlError RDTL-T031 for a damaged
    file, RefusedError RDTL-T032 for a pickle that holds more than tensors, OSError for a
    file that cannot be opened.
    """
    if path.suffix == ".safetensors":
        return _safetensors(path)
    return _archive(path)


def _safetensors(path: Path) -> dict[str, Tensor]:
    with path.open("rb"):  # what may not be opened is not damaged: that OSError passes
        pass
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, str(error)) from error


def _archive(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        start = file.read(4)
    if not ARCHIVE.startswith(start):
        raise _unsafe(path, "it is no archive of torch.save, but a bare pickle or worse")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise _unsafe(path, f"it asks for {_globals(path)}") from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise _damaged(path, str(error).split("\n")[0]) from error
    return _tensors(path, content)


def _tensors(path: Path, content: object) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get(MODULE), Mapping):
        content = content[MODULE]
    if isinstance(content, Mapping):
        foreign = [k for k, v in content.items() if not _dense(v)]
        if content and not foreign:
            return {str(name): tensor for name, tensor in content.items()}
        found = f"{foreign[0]!r} is no tensor with numbers of its own" if foreign else "it is empty"
    else:
        found = f"it holds a {type(content).__name__}"
    raise RdtlError(
        "RDTL-T031",
        "the file is no state dict",
        where=f"{path}: {found}",
        why="a network is filled from names and tensors",
        fix="name pytorch_model.bin, model.safetensors or mp_rank_00_model_states.pt",
    )


def _dense(value: object) -> bool:
    """Whether it is a tensor with all its numbers: not sparse, nor one of the meta device."""
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta


def _globals(path: Path) -> str:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, pickle.UnpicklingError) as error:
        return f"what cannot be read ({error})"
    return ", ".join(sorted(names)) or "an operation that no state dict needs"


def _unsafe(path: Path, found: str) -> RefusedError:
    return RefusedError(
        "RDTL-T032",
        "a pickle that holds more than tensors is not read",
        where=f"{path}: {found}",
        why="reading it would run code of whoever wrote it",
        fix="name a file of weights; if it is one, ask its author for model.safetensors",
    )


def _damaged(path: Path, found: str) -> RdtlError:
    return RdtlError(
        "RDTL-T031",
        "a file of weights is damaged or cut short",
        where=f"{path} ({path.stat().st_size:,} bytes): {found}",
        why="a part of the network would be missing",
        fix="copy or download it again, and compare its size and digest with the source",
    )
