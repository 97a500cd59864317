"""Do the tensors of a file make the network of its config.json? All of it, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from launcher.core.errors import RdtlError, RefusedError
from rdt.checkpoint.opening import Checkpoint
from rdt.checkpoint.sizes import Difference, differences
from rdt.checkpoint.tensors import REAL

SHOWN = 3
"""How many tensors an error names; the others are counted."""

Shape = tuple[int, ...]


class Fit(NamedTuple):
    """Names of tensors that are missing, left over, of another shape or no plain real numbers.

    ``misshaped`` has (name, stored shape, expected shape); ``fields`` are what in
    config.json explains it.
    """

    missing: list[str]
    unexpected: list[str]
    misshaped: list[tuple[str, Shape, Shape]]
    encoded: list[str]
    fields: list[Difference]


def compare(checkpoint: Checkpoint) -> Fit:
    """How the header of the file differs from the network that config.json describes."""
    found, expected = checkpoint.header, checkpoint.expected()
    return Fit(
        missing=[name for name in expected if name not in found],
        unexpected=[name for name in found if name not in expected],
        misshaped=[
            (name, found[name].shape, shape)
            for name, shape in expected.items()
            if name in found and found[name].shape != shape
        ],
        encoded=[name for name, stored in found.items() if stored.dtype not in REAL],
        fields=differences(checkpoint.config, found),
    )


def require(checkpoint: Checkpoint, fit: Fit) -> None:
    """Raise for tensors that do not make the network.

    RefusedError RDTL-T021 for other sizes, with the fields of config.json; RdtlError
    RDTL-T020 for missing or unexpected tensors; RefusedError RDTL-T022 for
    integers, float8 and other types that need scales.
    """
    where = str(checkpoint.origin.path)
    if fit.misshaped or fit.fields:
        raise _sizes(checkpoint, fit)
    if fit.missing or fit.unexpected:
        parts = (("missing", fit.missing), ("unexpected", fit.unexpected))
        counts = "; ".join(f"{len(n)} {word}: {some(n)}" for word, n in parts if n)
        raise RdtlError(
            "RDTL-T020",
            "the weights are not those of this network",
            where=f"{where}: {counts}",
            why="a network with missing or foreign weights would be taken for the trained one",
            fix="take `module.` off the names: it is of a parallel wrapper, whose inner network "
            "is to be saved (wrapper.module.state_dict())"
            if fit.unexpected and all(name.startswith("module.") for name in checkpoint.header)
            else "name a checkpoint that is whole: rdtl checkpoint inspect lists every tensor",
        )
    if fit.encoded:
        raise RefusedError(
            "RDTL-T022",
            "the weights are not stored as real numbers of 16 bits or more",
            where=f"{where}: {some([_typed(checkpoint, name) for name in fit.encoded])}",
            why="quantised weights cannot be read without their scales",
            fix="name the checkpoint before it was quantised",
        )


def _typed(checkpoint: Checkpoint, name: str) -> str:
    return f"{name} ({checkpoint.header[name].dtype})".replace("torch.", "")


def some(names: Sequence[str]) -> str:
    """The first names and how many follow."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def explain(difference: Difference) -> str:
    """A field in which config.json and the tensors disagree."""
    field, config, found = difference
    return f"{field} = {config}, the tensors have {found}"


def _sizes(checkpoint: Checkpoint, fit: Fit) -> RefusedError:
    shapes = [f"{name} {list(f)}, expected {list(e)}" for name, f, e in fit.misshaped]
    parts = [f"{checkpoint.origin.config}: {'; '.join(map(explain, fit.fields))}"]
    parts += [f"{len(shapes)} tensors of another shape: {some(shapes)}"] if shapes else []
    parts += [f"{len(fit.missing)} missing, {len(fit.unexpected)} unexpected"]
    return RefusedError(
        "RDTL-T021",
        "config.json describes a network of other sizes than the weights",
        where=f"{checkpoint.origin.path}: {'; '.join(parts)}",
        why="half of a network, or none, would be loaded",
        fix="use the config.json that was saved with these weights",
    )
