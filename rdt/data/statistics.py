"""Statistics of a data set in the 128 slots, in float64, and the file that carries them.

``statistics.json`` names the data by its digest and the contract in full, so that
a reader can refuse numbers of other data (RDTL-D002, RDTL-T012).
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.core import files
from launcher.core.errors import RdtlError
from rdt.data import unified
from rdt.data.demonstrations import Demonstrations
from rdt.data.streaming import Moments
from rdt.spec.contract import require_same

QUANTILES = (0.01, 0.99)


@dataclass(frozen=True)
class Summary:
    """Six numbers per slot, each a list of 128 floats."""

    mean: list[float]
    std: list[float]
    min: list[float]
    max: list[float]
    q01: list[float]
    q99: list[float]


@dataclass(frozen=True)
class Statistics:
    """What training needs to know of its data; ``dataset`` is a path, relative to RUN if inside."""

    contract: dict[str, Any]
    dataset: str
    dataset_digest: str
    suite: str
    task: str
    instruction: str
    camera_size: int
    episodes: int
    steps: int
    windows: int
    state: Summary
    action: Summary
    dtype: str = "float64"

    def write(self, path: Path) -> None:
        """Write ``statistics.json`` whole."""
        files.write_json(path, asdict(self))


def summarise(values: NDArray[np.float64]) -> Summary:
    """Statistics of (n, 128) float64 over the rows; the spread is that of a population."""
    moments, (low, high) = Moments.of(values), np.quantile(values, QUANTILES, axis=0)
    rows = (moments.mean, moments.std, moments.low, moments.high, low, high)
    return Summary(*(row.tolist() for row in rows))


def compute(demonstrations: Demonstrations, suite: str, dataset: str) -> Statistics:
    """Statistics over every control step, whether it has a picture or not."""
    episodes = demonstrations.episodes
    actions = np.concatenate([episode.actions for episode in episodes])
    return Statistics(
        contract=demonstrations.contract.to_dict(),
        dataset=dataset,
        dataset_digest=file_digest(demonstrations.path),
        suite=suite,
        task=demonstrations.task,
        instruction=demonstrations.instruction,
        camera_size=demonstrations.camera_size,
        episodes=len(episodes),
        steps=len(actions),
        windows=len(demonstrations.windows),
        state=summarise(np.concatenate([episode.state for episode in episodes])),
        action=summarise(unified.encode_action(actions, demonstrations.contract)),
    )


def read(path: Path) -> Statistics:
    """Read ``statistics.json``; refuses another contract (RDTL-T012).

    Raises RdtlError RDTL-D006 when it is absent.
    """
    try:
        data: dict[str, Any] = files.read_json(path)
    except FileNotFoundError as error:
        raise RdtlError(
            "RDTL-D006",
            "there are no statistics of the data",
            where=str(path),
            why="states are normalised with them in training and in evaluation",
            fix="run the dataset stage first: python -m jobs.dataset RUN_DIR",
        ) from error
    require_same(data["contract"], str(path))
    summaries = {name: Summary(**data[name]) for name in ("state", "action")}
    return Statistics(**{**data, **summaries})


def file_digest(path: Path) -> str:
    """SHA-256 of the file's bytes, hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
