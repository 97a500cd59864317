"""One batch, collated, and the tables from which its numbers are gathered.

A contract's states and actions fill few of the 128 slots, and always the same ones: a
table keeps these columns of all steps as float32, a batch has zeros in the others. Numbers
are taken as float32, as all copies but HDF5 hold them, so that copies give the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from rdt.data import raw_pictures, unified
from rdt.data.raw_pictures import Pieces
from rdt.data.store import EpisodeStore
from rdt.spec.contract import UNIFIED_SIZE, Contract

BACKGROUND = 127
"""The grey of a picture that does not exist."""
ENCODED_AT_ONCE = 1 << 12
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class Batch(NamedTuple):
    """Arrays of B samples; ``horizon`` H, ``moments`` m (the last one is now), cameras c.

    ``samples`` (B,) int64, rising, and where they stand in the stream, ``positions`` (B,)
    int64; ``episodes`` (B,) int64; ``actions`` (B, H, 128) float32 in units of the
    contract, behind the episode's end its last action, where ``valid`` (B, H) is False;
    ``states`` (B, 128) float32, in units of the contract, not normalised; ``pictures``
    (B, m, c, S, S, 3) uint8 as the contract has them turned, the background where
    ``present`` (B, m, c) is False: a camera that does not exist, or a moment before the
    episode's first step.
    """

    samples: Ints
    positions: Ints
    episodes: Ints
    actions: Floats
    valid: NDArray[np.bool_]
    states: Floats
    pictures: NDArray[np.uint8]
    present: NDArray[np.bool_]


class Buffer(NamedTuple):
    """A batch to be filled again and again, with the places of its pictures cut out once."""

    batch: Batch
    pieces: list[Pieces]


def empty(size: int, horizon: int, moments: int, contract: Contract, pixels: int) -> Buffer:
    """A buffer of ``size`` samples with pictures of ``pixels`` squared."""
    cameras = len(contract.cameras)
    real = np.array([bool(camera) for camera in contract.cameras])
    batch = Batch(
        np.zeros(size, np.int64),
        np.zeros(size, np.int64),
        np.zeros(size, np.int64),
        np.zeros((size, horizon, UNIFIED_SIZE), np.float32),
        np.zeros((size, horizon), np.bool_),
        np.zeros((size, UNIFIED_SIZE), np.float32),
        np.full((size, moments, cameras, pixels, pixels, 3), BACKGROUND, np.uint8),
        np.broadcast_to(real, (size, moments, cameras)).copy(),
    )
    return Buffer(batch, raw_pictures.pieces(batch.pictures, np.flatnonzero(real).tolist()))


class Table:
    """Columns of all steps, (steps + horizon, ·) float32, and the slots that they fill."""

    def __init__(
        self, slots: Sequence[int], pieces: Iterable[NDArray[np.float64]], horizon: int
    ) -> None:
        columns = np.array(sorted(slots))
        parts = [piece[:, columns].astype(np.float32) for piece in pieces]
        behind = np.zeros((horizon, len(columns)), np.float32)  # so that all chunks are inside
        self._values = np.concatenate([*parts, behind])
        rows, item = self._values.strides
        shape = (len(self._values) - horizon + 1, horizon, len(columns))
        self._chunks = as_strided(self._values, shape, (rows, rows, item), writeable=False)
        breaks = np.flatnonzero(np.diff(columns) != 1) + 1
        firsts, ends = [0, *breaks.tolist()], [*breaks.tolist(), len(columns)]
        self._runs = [
            (slice(int(columns[a]), int(columns[a]) + b - a), slice(a, b))
            for a, b in zip(firsts, ends, strict=True)
        ]

    def spreads(self, starts: Ints, lengths: Ints) -> NDArray[np.float64]:
        """Standard deviation (n, 128) float64 within each range of steps (population)."""
        steps = int(lengths.sum())
        values = self._values[:steps].astype(np.float64)
        mean = np.add.reduceat(values, starts) / lengths[:, None]
        values -= np.repeat(mean, lengths, axis=0)
        found = np.sqrt(np.add.reduceat(values**2, starts) / lengths[:, None])
        out = np.zeros((len(starts), UNIFIED_SIZE))
        self._spread(found, out)
        return out

    def gather(self, steps: Ints, out: Floats) -> None:
        """Fill the table's slots of ``out`` (n, 128) with ``steps`` (n,)."""
        self._spread(self._values[steps], out)

    def gather_chunks(self, steps: Ints, counts: Ints, out: Floats) -> None:
        """Fill ``out`` (n, H, 128) with the rows from ``steps`` (n,) on.

        The first ``counts`` (n,) are taken; the last of these is repeated behind them.
        """
        found = self._chunks[steps]
        for short in np.flatnonzero(counts < out.shape[1]).tolist():
            found[short, counts[short] :] = found[short, counts[short] - 1]
        self._spread(found, out)

    def _spread(self, found: NDArray[Any], out: NDArray[Any]) -> None:
        for slots, columns in self._runs:
            out[..., slots] = found[..., columns]


def state_table(stores: Sequence[EpisodeStore], contract: Contract) -> Table:
    """The states of all steps of all ``stores``."""

    def encode(store: EpisodeStore, rows: slice) -> NDArray[np.float64]:
        parts = (np.asarray(part)[rows].astype(np.float32) for part in store.robot)
        return unified.encode_state(unified.RobotState(*parts), contract)

    return Table(contract.state_slots, _pieces(stores, encode), 0)


def action_table(stores: Sequence[EpisodeStore], contract: Contract, horizon: int) -> Table:
    """The actions of all steps of all ``stores``, for chunks of ``horizon``."""

    def encode(store: EpisodeStore, rows: slice) -> NDArray[np.float64]:
        return unified.encode_action(store.actions[rows].astype(np.float32), contract)

    return Table(contract.action_slots, _pieces(stores, encode), horizon)


def _pieces(
    stores: Sequence[EpisodeStore], encode: Callable[[EpisodeStore, slice], NDArray[np.float64]]
) -> Iterator[NDArray[np.float64]]:
    """Encoded in pieces that stay in the cache; all slots at once would be a gigabyte a million."""
    for store in stores:
        for first in range(0, len(store), ENCODED_AT_ONCE):
            yield encode(store, slice(first, first + ENCODED_AT_ONCE))
