"""Statistics of whole data sets under a contract, whatever their layout.

Numbers are taken as float32, as all copies but HDF5 hold them, so that copies of the same
demonstrations have the same statistics and the same digest; sums are float64. Memory is
that of one episode and of at most `streaming.EXACT_ROWS` rows. LIBERO's files are read by
several processes, a file at a time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RefusedError
from launcher.core.job import begin_worker
from rdt.data import unified
from rdt.data.declared import DeclaredSet
from rdt.data.recording import Conventions, Episode, Recording, require_joints
from rdt.data.statistics import QUANTILES, Summary
from rdt.data.store import EpisodeStore
from rdt.data.streaming import EXACT_ROWS, Histogram, Moments, Stream
from rdt.data.unified import RobotState
from rdt.data.widths import ACTION
from rdt.spec.contract import UNIFIED_SIZE, Contract


@dataclass(frozen=True)
class Totals:
    """Statistics of ``action`` and ``state`` over every control step.

    Lists of 7 and 8 numbers in the units of the files, or of 128 in those of the
    contract. ``digest`` covers the numbers and instructions of all episodes, in any order
    and layout. ``quantile_error``: by how much q01 and q99 can be off, 0 when exact.
    """

    action: Summary
    state: Summary
    digest: str
    episodes: int
    steps: int
    quantile_error: float


@dataclass(frozen=True)
class Measured(Totals):
    """Those of one data set, and what it is."""

    contract: Contract
    kind: str
    conventions: Conventions


@dataclass
class Pass:
    """What one pass over a part of the data finds."""

    stream: Stream
    episodes: list[bytes] = field(default_factory=list)

    def merge(self, other: Pass) -> Pass:
        self.stream.merge(other.stream)
        self.episodes += other.episodes
        return self


Columns = Callable[[Recording], NDArray[np.floating]]


def raw_columns(numbers: Recording | EpisodeStore) -> NDArray[np.float32]:
    """Action (7) and LIBERO's state (8: position, axis-angle, fingers), (T, 15)."""
    robot = numbers.robot
    parts = (numbers.actions, robot.eef_pos, robot.axis_angle, robot.gripper_qpos)
    return np.concatenate([np.asarray(part, np.float32) for part in parts], axis=1)


def slot_columns(recording: Recording, contract: Contract) -> NDArray[np.float64]:
    """The contract's action slots, then its state slots, (T, ·), in its units."""
    episode = recording.episode
    require_joints(recording.robot, contract, f"{episode.file}: {episode.name}")
    robot = RobotState(*(np.asarray(part, np.float32) for part in recording.robot))
    action = unified.encode_action(recording.actions.astype(np.float32), contract)
    state = unified.encode_state(robot, contract)
    return np.concatenate(
        [action[:, list(contract.action_slots)], state[:, list(contract.state_slots)]], axis=1
    )


def measure(
    source: DeclaredSet,
    contract: Contract,
    *,
    slots: bool,
    processes: int | None = None,
    exact_rows: int = EXACT_ROWS,
) -> Measured:
    """Statistics of one data set, as of :func:`measure_all`."""
    kind, conventions, _ = source.conventions()
    totals = measure_all(
        [source], contract, slots=slots, processes=processes, exact_rows=exact_rows
    )
    return Measured(**vars(totals), contract=contract, kind=kind, conventions=conventions)


def measure_all(
    sources: Sequence[DeclaredSet],
    contract: Contract,
    *,
    slots: bool,
    processes: int | None = None,
    exact_rows: int = EXACT_ROWS,
) -> Totals:
    """Statistics over all ``sources``: of the contract's ``slots``, or of raw numbers.

    Every control step counts once, whatever the weights. Raises what the readers raise,
    RefusedError RDTL-D006 for NaN and RDTL-D034 when the contract needs joints that are
    not there.
    """
    parts = [part for source in sources for part in _parts(source)]
    columns: Columns = partial(slot_columns, contract=contract) if slots else raw_columns
    with _Workers(processes, len(parts)) as workers:
        found = reduce(Pass.merge, workers.map(partial(_first, columns, exact_rows), parts))
        if found.stream.rows is not None:
            quantiles, error = found.stream.quantiles(QUANTILES), 0.0
        else:
            counted = _count(workers, columns, parts, found.stream)
            quantiles, error = counted.quantiles(QUANTILES), float(counted.error.max())
    action, state = _summaries(found.stream, quantiles, contract if slots else None)
    digest = _joined(found.episodes)
    steps = _moments(found.stream).count
    return Totals(action, state, digest, len(found.episodes), steps, error)


def _parts(source: DeclaredSet) -> list[DeclaredSet]:
    """What can be read independently: LIBERO's files, unless something is chosen among them."""
    kind, _, files = source.conventions()
    if kind != "libero-hdf5" or source.tasks or source.demos:
        return [source]
    return [replace(source, path=file) for file in files]


class _Workers:
    """Processes for more than one part, else this process."""

    def __init__(self, processes: int | None, parts: int) -> None:
        count = min(processes or len(os.sched_getaffinity(0)), parts)
        # Forking would copy the threads' locks of whoever asks.
        pool = partial(ProcessPoolExecutor, count, get_context("spawn"), begin_worker)
        self._pool = pool() if count > 1 else None

    def map(
        self, work: Callable[[DeclaredSet], Any], parts: Sequence[DeclaredSet]
    ) -> Iterator[Any]:
        return self._pool.map(work, parts) if self._pool else map(work, parts)

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)


def _first(columns: Columns, exact_rows: int, source: DeclaredSet) -> Pass:
    found = Pass(Stream(exact_rows))
    for recording in source.recordings():
        rows = columns(recording)
        _require_numbers(rows, recording)
        found.stream.add(rows)
        found.episodes.append(_digest(recording.episode, raw_columns(recording)))
    return found


def _second(columns: Columns, low: Any, high: Any, source: DeclaredSet) -> Histogram:
    counted = Histogram(low, high)
    for recording in source.recordings():
        counted.add(columns(recording))
    return counted


def _count(
    workers: _Workers, columns: Columns, parts: Sequence[DeclaredSet], first: Stream
) -> Histogram:
    moments = _moments(first)
    total = Histogram(moments.low, moments.high)
    for counted in workers.map(partial(_second, columns, moments.low, moments.high), parts):
        total.merge(counted)
    return total


def _moments(found: Stream) -> Moments:
    assert found.moments is not None, "readers refuse sets without episodes"
    return found.moments


def digest_of(stores: Sequence[EpisodeStore]) -> str:
    """The digest that :func:`measure_all` finds of the same sets; a moment for a million steps."""
    found = []
    for store in stores:
        rows = np.split(raw_columns(store), store.ends[:-1])
        found += map(_digest, store.episodes, rows)
    return _joined(found)


def _joined(episodes: list[bytes]) -> str:
    return hashlib.sha256(b"".join(sorted(episodes))).hexdigest()


def _digest(episode: Episode, rows: NDArray[np.float32]) -> bytes:
    """SHA-256 of an episode's instruction and raw numbers; joints are not in every copy."""
    return hashlib.sha256(episode.instruction.encode() + b"\0" + rows.tobytes()).digest()


def _require_numbers(rows: NDArray[np.floating], recording: Recording) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise RefusedError(
            "RDTL-D006",
            "actions or states hold NaN or infinity",
            where=f"{recording.episode.file}: {recording.episode.name}, step {bad[0]} "
            f"({len(bad)} of {len(rows)} steps)",
            why="every mean and spread would be NaN",
            fix="copy or convert this episode again, or choose others",
        )


def _summaries(
    found: Stream, quantiles: NDArray[np.float64], contract: Contract | None
) -> tuple[Summary, Summary]:
    """Of action and state; with a contract in its 128 slots, 0 where unused."""
    moments = _moments(found)
    table = np.stack([moments.mean, moments.std, moments.low, moments.high, *quantiles])
    if contract is None:
        return Summary(*table[:, :ACTION].tolist()), Summary(*table[:, ACTION:].tolist())
    action, state = np.zeros((2, len(table), UNIFIED_SIZE))
    count = len(contract.action_slots)
    action[:, list(contract.action_slots)] = table[:, :count]
    state[:, list(contract.state_slots)] = table[:, count:]
    return Summary(*action.tolist()), Summary(*state.tolist())
