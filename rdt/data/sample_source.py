"""Data sets under one contract, from which whole batches are gathered."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RefusedError, UsageError
from rdt.data import batch as batches
from rdt.data.batch import BACKGROUND, Batch, Buffer, Ints
from rdt.data.contents import changed, describe
from rdt.data.index import Index, Member
from rdt.data.raw_pictures import RawPictures
from rdt.data.store import EpisodeStore
from rdt.spec.contract import Contract

HORIZON = 64
ANY = (1, sys.maxsize)
"""Episodes of every length."""


class Learned(NamedTuple):
    """What samples are taken of: names of tasks, demonstrations and samples of them."""

    tasks: tuple[str, ...]
    demonstrations: int
    windows: int


class SampleSource:
    """Samples of ``stores``: ``moments`` pictures by camera, the state, ``horizon`` actions.

    ``index`` numbers them; ``instructions``: the words of each episode; ``lengths``: of
    episodes with fewer or more steps no sample is taken, nor of those that ``left_out``
    (episodes,) of their store flags. Raises RefusedError RDTL-D034 for
    what the contract needs and a set lacks, RDTL-D036 for pictures of two sizes, RDTL-D038
    when earlier moments are wanted of a set that has not a picture of every step, and
    UsageError RDTL-D044 when a set has no episode within ``lengths``.
    """

    def __init__(
        self,
        stores: Sequence[EpisodeStore],
        contract: Contract,
        moments: int = 2,
        horizon: int = HORIZON,
        lengths: tuple[int, int] = ANY,
        left_out: Sequence[NDArray[np.bool_]] = (),
    ) -> None:
        self.stores, self.contract = tuple(stores), contract
        left_out = left_out or [np.zeros(len(store.ends), np.bool_) for store in self.stores]
        self.moments, self.horizon, self.lengths = moments, horizon, lengths
        for store in self.stores:
            store.require(contract)
        self.picture_size = _common_size(self.stores)
        if moments > 1:
            _require_every_picture(self.stores)
        pairs = zip(self.stores, left_out, strict=True)
        self.index = Index([Member(s.ends, sampled_steps(s, lengths, out)) for s, out in pairs])
        self.instructions = [e.instruction for store in self.stores for e in store.episodes]
        self._states = batches.state_table(self.stores, contract)
        self._actions = batches.action_table(self.stores, contract, horizon)
        self._ahead = np.arange(horizon)
        self._cameras = [(place, name) for place, name in enumerate(contract.cameras) if name]
        self._real = np.array([bool(name) for name in contract.cameras])
        names = [name for _, name in self._cameras]
        self._raw = [
            None
            if (places := store.raw(names)) is None
            else RawPictures(places, store.picture_size, moments)
            for store in self.stores
        ]

    def learned(self) -> Learned:
        """What is there to learn from, without what is left out."""
        samples = np.arange(sum(self.index.sizes))
        used = np.bincount(self.index.episodes(self.index.steps(samples))) > 0
        episodes = [episode for store in self.stores for episode in store.episodes]
        tasks = {episodes[number].task for number in np.flatnonzero(used)}
        return Learned(tuple(sorted(tasks)), int(used.sum()), len(samples))

    def empty(self, size: int) -> Buffer:
        """A buffer of ``size`` samples for :meth:`fill`."""
        return batches.empty(size, self.horizon, self.moments, self.contract, self.picture_size)

    def state_spread(self) -> NDArray[np.float64]:
        """Standard deviation of the state within each episode, (episodes, 128) float64."""
        return self._states.spreads(self.index.starts, self.index.ends - self.index.starts)

    def fill(self, samples: Ints, buffer: Buffer, position: int = 0) -> Buffer:
        """Fill ``buffer`` with ``samples`` (B,), which it keeps in rising order; returns it.

        They stand at ``position`` and behind it in the stream.
        """
        out = buffer.batch
        order = np.argsort(samples, kind="stable")
        out.samples[:] = samples[order]
        np.add(order, position, out=out.positions)
        steps = self.index.steps(out.samples)
        out.episodes[:] = episodes = self.index.episodes(steps)
        counts = self.index.ends[episodes] - steps
        np.less(self._ahead, counts[:, None], out=out.valid)
        self._actions.gather_chunks(steps, counts, out.actions)
        self._states.gather(steps, out.states)
        rows = steps - self.index.starts[episodes]
        limits = np.searchsorted(steps, self.index.bounds).tolist()
        for number, (a, b) in enumerate(pairwise(limits)):
            if a < b:
                self._fill_pictures(number, np.arange(a, b), rows, buffer)
        self._mark(rows, out)
        return buffer

    def _fill_pictures(self, number: int, places: Ints, rows: Ints, buffer: Buffer) -> None:
        """The pictures of a batch's ``places`` (n,), all of them of set ``number``."""
        out, store, raw = buffer.batch, self.stores[number], self._raw[number]
        whole = out.pictures[places[0] : places[-1] + 1]
        episodes = out.episodes[places] - self.index.firsts[number]
        if raw is None or raw.disk.busy:
            self._read(store, episodes, rows[places], whole)
        else:
            inside = rows[places] >= self.moments - 1
            pieces = [buffer.pieces[place] for place in places[inside].tolist()]
            raw.read(episodes[inside], rows[places[inside]], pieces)
            for i in np.flatnonzero(~inside).tolist():
                self._read(store, episodes[[i]], rows[places[[i]]], whole[i : i + 1])
        if raw is not None:
            raw.disk.look()
        self._turn(store, whole)

    def _mark(self, rows: Ints, out: Batch) -> None:
        """Say which pictures there are, and put the background where there is none."""
        out.present[:] = self._real
        for place in np.flatnonzero(rows < self.moments - 1).tolist():
            missing = self.moments - 1 - int(rows[place])
            out.present[place, :missing] = False
            out.pictures[place, :missing] = BACKGROUND

    def _read(
        self, store: EpisodeStore, episodes: Ints, rows: Ints, out: NDArray[np.uint8]
    ) -> None:
        """Fill ``out`` (n, m, c, S, S, 3) as the store does, before its beginning with row 0."""
        wanted = np.maximum(rows[:, None] + np.arange(1 - self.moments, 1), 0)
        steps = (store.starts[episodes][:, None] + wanted).reshape(-1)
        flat = out.view()
        flat.shape = (len(steps), *out.shape[2:])
        store.pictures(steps, {camera: flat[:, place] for place, camera in self._cameras})

    def _turn(self, store: EpisodeStore, pictures: NDArray[np.uint8]) -> None:
        """Turn by 180 degrees what does not lie in its file as the contract has it."""
        if store.rotation != self.contract.camera_rotation:
            pictures[:] = pictures[..., ::-1, ::-1, :].copy()

    def files(self) -> list[dict[str, Any]]:
        """Path, size and mtime of every file, as found when the sets were opened."""
        return [entry for store in self.stores for entry in store.source()["files"]]

    def identity(self) -> dict[str, Any]:
        """What decides which numbers its samples hold, as JSON: files, what is declared of
        them, and a digest of the chosen episodes in their order, for each set.

        Links are followed: the same data may be named by several paths.
        """
        real = [file | {"path": str(Path(file["path"]).resolve())} for file in self.files()]
        return {
            "files": real,
            "conventions": [vars(store.conventions) for store in self.stores],
            "episodes": [_digest(store) for store in self.stores],
            "lengths": list(self.lengths),
            "moments": self.moments,
            "horizon": self.horizon,
        }

    def require_unchanged(self) -> None:
        """Raise RdtlError RDTL-D028 when a file has not the size or time it had."""
        for then in self.files():
            path = Path(then["path"])
            now = describe([path])[0] if path.is_file() else {}
            if now != then:
                raise changed(then, now)

    def close(self) -> None:
        """Nobody waits here, unlike for a buffer's chunks."""


def _digest(store: EpisodeStore) -> str:
    """Hexadecimal digest of the episodes: the same files may be read in part."""
    real = {file: str(file.resolve()) for file in {e.file for e in store.episodes}}
    episodes = [[real[e.file], e.name, e.instruction, e.length] for e in store.episodes]
    return hashlib.sha256(json.dumps(episodes).encode()).hexdigest()


def _common_size(stores: Sequence[EpisodeStore]) -> int:
    sizes = {store.picture_size: store for store in stores}
    if len(sizes) == 1:
        return next(iter(sizes))
    raise RefusedError(
        "RDTL-D036",
        "the pictures of the data sets are not of one size",
        where=", ".join(f"{store.path}: {size} pixels" for size, store in sizes.items()),
        why="a batch holds pictures of one size",
        fix="train on sets whose pictures are alike",
    )


def _require_every_picture(stores: Sequence[EpisodeStore]) -> None:
    for store in stores:
        if len(store.sampled) != len(store):
            raise RefusedError(
                "RDTL-D038",
                "a data set has not a picture of every step",
                where=f"{store.path}: {len(store.sampled)} of {len(store)} steps were rendered",
                why="the picture of the step before would be an older one than in the evaluation",
                fix="collect with render_every 1, or use a network that sees one moment",
            )


def sampled_steps(store: EpisodeStore, lengths: tuple[int, int], out: NDArray[np.bool_]) -> Ints:
    """Steps (n,) with a picture of their own, of episodes of these lengths that are not ``out``.

    Raises UsageError RDTL-D044 when there is no such episode.
    """
    shortest, longest = lengths
    sizes = store.ends - store.starts
    fits = (sizes >= shortest) & (sizes <= longest) & ~out
    if fits.all():
        return store.sampled
    if fits.any():
        return store.sampled[fits[np.searchsorted(store.ends, store.sampled, "right")]]
    raise UsageError(
        "RDTL-D044",
        "a data set has no episode of a wanted length",
        where=f"{store.path}: {sizes.min()} to {sizes.max()} steps; wanted {shortest} to {longest}",
        why="there would be nothing to train on",
        fix="change the limits, or leave this set out",
    )
