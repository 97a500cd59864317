"""``statistics.json``: what a run's training and its policy need to know of its data.

It names the data by their digest and the contract in full, so that a reader can refuse
numbers of other data (RDTL-D002, RDTL-T012). The numbers are those of
:mod:`rdt.data.measuring`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.errors import RdtlError
from rdt.data.declared import DeclaredSet
from rdt.spec.contract import require_same

QUANTILES = (0.01, 0.99)


@dataclass(frozen=True)
class Summary:
    """Six numbers a column of many rows; the spread is that of a population."""

    mean: list[float]
    std: list[float]
    min: list[float]
    max: list[float]
    q01: list[float]
    q99: list[float]


@dataclass(frozen=True)
class Statistics:
    """``sets``: as of :meth:`rdt.data.declared.DeclaredSet.to_dict`, paths relative to RUN if
    inside. ``steps`` count control steps, ``windows`` samples; ``state`` and ``action`` have
    lists of 128."""

    contract: dict[str, Any]
    sets: list[dict[str, Any]]
    dataset_digest: str
    suite: str
    tasks: list[str]
    camera_size: int
    episodes: int
    steps: int
    windows: int
    state: Summary
    action: Summary
    quantile_error: float
    dtype: str = "float64"

    def write(self, path: Path) -> None:
        """Write ``statistics.json`` whole."""
        files.write_json(path, asdict(self))

    def sources(self, run: Path) -> list[DeclaredSet]:
        """The data sets, with paths as seen from anywhere; ``run`` is the run's directory."""
        sources = [DeclaredSet.of(entry) for entry in self.sets]
        return [replace(source, path=run / source.path) for source in sources]


def read(path: Path) -> Statistics:
    """Read ``statistics.json``; refuses another contract (RDTL-T012).

    Raises RdtlError RDTL-D006 when it is absent or was written by another version.
    """
    try:
        data: dict[str, Any] = files.read_json(path)
    except FileNotFoundError as error:
        raise _unusable("there are no statistics of the data", str(path)) from error
    require_same(data.get("contract"), str(path))
    differing = {field.name for field in fields(Statistics)} ^ data.keys()
    if differing:
        raise _unusable(
            "the statistics were written by another version",
            f"{path}: {', '.join(sorted(differing))} missing or unknown",
        )
    summaries = {name: Summary(**data[name]) for name in ("state", "action")}
    return Statistics(**{**data, **summaries})


def _unusable(what: str, where: str) -> RdtlError:
    return RdtlError(
        "RDTL-D006",
        what,
        where=where,
        why="states are normalised with them in training and in evaluation",
        fix="run the dataset stage first: python -m jobs.dataset RUN_DIR",
    )
