"""What DeepSpeed wants to save, held in memory while training goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from rdt.checkpoint.saving import write_tensors
from rdt.training.checkpoint_files import TAG


class Snapshot(TorchCheckpointEngine):  # type: ignore[misc]  # DeepSpeed has no types
    """DeepSpeed's way to files for one checkpoint: it copies, and writes when asked to.

    Its file names are relative to the checkpoint's directory.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held: list[tuple[str, dict[str, Any]]] = []

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing is written yet."""

    def save(self, state_dict: dict[str, Any], path: str) -> None:
        """Copy every tensor to memory of the CPU: the optimizer goes on to change it."""
        self._held.append((path, tree_map_only(Tensor, _copied, state_dict)))

    def bytes(self) -> int:
        """Size of all tensors held."""
        leaves = (leaf for _, state in self._held for leaf in tree_leaves(state))
        return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor))

    def write(self, folder: Path) -> Iterator[Path]:
        """Write the files below ``folder``, each forced to disk, and let their memory go.

        Raises OSError where the file system failed.
        """
        while self._held:
            name, state = self._held.pop(0)
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(path, state)
            yield path


def take(engine: Any) -> Snapshot:
    """A copy of this rank's part of the state of DeepSpeed's engine. Every rank calls this."""
    before, copy_script = engine.checkpoint_engine, engine._copy_recovery_script
    engine.checkpoint_engine = snapshot = Snapshot()
    engine._copy_recovery_script = lambda path: None  # ``policy/`` has the whole weights
    try:
        engine.save_checkpoint(".", tag=TAG, save_latest=False)
    finally:
        engine.checkpoint_engine, engine._copy_recovery_script = before, copy_script
    return snapshot


def _copied(tensor: Tensor) -> Tensor:
    # A view would drag its whole storage into the file.
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
