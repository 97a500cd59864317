"""Data sets under one contract, from which whole batches are gathered."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from launcher.core.errors import RdtlError, RefusedError
from rdt.data import batch as batches
from rdt.data.batch import BACKGROUND, Buffer, Ints
from rdt.data.index import Index, Member
from rdt.data.raw_pictures import RawPictures
from rdt.data.store import EpisodeStore, describe
from rdt.spec.contract import Contract

HORIZON = 64


class Source:
    """Samples of ``stores``: ``moments`` pictures by camera, the state, ``horizon`` actions.

    ``index`` numbers them; ``instructions``: the words of each episode. Raises
    RefusedError RDTL-D034 for what the contract needs and a set lacks, RDTL-D036 for
    pictures of two sizes, and RDTL-D038 when earlier moments are wanted of a set that has
    not a picture of every step.
    """

    def __init__(
        self,
        stores: Sequence[EpisodeStore],
        contract: Contract,
        moments: int = 2,
        horizon: int = HORIZON,
    ) -> None:
        self.stores, self.contract = tuple(stores), contract
        self.moments, self.horizon = moments, horizon
        for store in self.stores:
            store.require(contract)
        self.picture_size = _common_size(self.stores)
        self.index = Index([Member(store.ends, store.sampled) for store in self.stores])
        if moments > 1 and not self.index.complete:
            raise _sparse(self.stores)
        self.instructions = [e.instruction for store in self.stores for e in store.episodes]
        self._states = batches.state_table(self.stores, contract)
        self._actions = batches.action_table(self.stores, contract, horizon)
        self._cameras = [(place, name) for place, name in enumerate(contract.cameras) if name]
        self._real = np.array([bool(name) for name in contract.cameras])
        names = [name for _, name in self._cameras]
        self._raw = [
            RawPictures(store, names, moments) if RawPictures.possible(store, names) else None
            for store in self.stores
        ]

    def empty(self, size: int) -> Buffer:
        """A buffer of ``size`` samples for :meth:`fill`."""
        return batches.empty(size, self.horizon, self.moments, self.contract, self.picture_size)

    def fill(self, samples: Ints, buffer: Buffer) -> Buffer:
        """Fill ``buffer`` with ``samples`` (B,), which it keeps in rising order; returns it."""
        out = buffer.batch
        out.samples[:] = np.sort(samples)
        steps = self.index.steps(out.samples)
        out.episodes[:] = self.index.episodes(steps)
        counts = self.index.ends[out.episodes] - steps
        np.less(np.arange(self.horizon), counts[:, None], out=out.valid)
        self._actions.gather_chunks(steps, counts, out.actions)
        self._states.gather(steps, out.states)
        self._fill_pictures(steps, buffer)
        return buffer

    def _fill_pictures(self, steps: Ints, buffer: Buffer) -> None:
        out = buffer.batch
        wanted = steps[:, None] + np.arange(1 - self.moments, 1)
        starts = self.index.starts[out.episodes]
        limits = np.searchsorted(steps, self.index.bounds).tolist()
        for number, (a, b) in enumerate(pairwise(limits)):
            if a == b:
                continue
            rest = np.arange(a, b)
            if raw := self._raw[number]:
                inside = wanted[a:b, 0] >= starts[a:b]
                taken, rest = rest[inside], rest[~inside]
                local = steps[taken] - self.index.bounds[number]
                raw.read(local, [buffer.pieces[i] for i in taken.tolist()])
            if len(rest):
                shown = np.maximum(wanted[rest], starts[rest, None]) - self.index.bounds[number]
                out.pictures[rest] = self._read(self.stores[number], shown)
            self._turn(self.stores[number], out.pictures[a:b])
        missing = wanted < starts[:, None]
        np.logical_and(~missing[:, :, None], self._real, out=out.present)
        if missing.any():
            out.pictures[missing] = BACKGROUND

    def _read(self, store: EpisodeStore, steps: Ints) -> NDArray[np.uint8]:
        """Pictures (n, m, c, S, S, 3) of ``steps`` (n, m), one after the other."""
        S, cameras = self.picture_size, len(self.contract.cameras)
        out = np.full((steps.size, cameras, S, S, 3), BACKGROUND, np.uint8)
        for place, camera in self._cameras:
            store.frames(camera, steps.reshape(-1), out[:, place])
        return out.reshape(*steps.shape, cameras, S, S, 3)

    def _turn(self, store: EpisodeStore, pictures: NDArray[np.uint8]) -> None:
        """Turn by 180 degrees what does not lie in its file as the contract has it."""
        if store.rotation != self.contract.camera_rotation:
            pictures[:] = pictures[..., ::-1, ::-1, :].copy()

    def files(self) -> list[dict[str, Any]]:
        """Path, size and mtime of every file, as found when the sets were opened."""
        return [entry for store in self.stores for entry in store.source()["files"]]

    def require_unchanged(self) -> None:
        """Raise RdtlError RDTL-D028 when a file has not the size or time it had."""
        for then in self.files():
            path = Path(then["path"])
            now = describe([path])[0] if path.is_file() else {}
            if now != then:
                raise _changed(then, now)


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


def _sparse(stores: Sequence[EpisodeStore]) -> RefusedError:
    lacking = next(store for store in stores if len(store.sampled) != len(store))
    return RefusedError(
        "RDTL-D038",
        "a data set has not a picture of every step",
        where=f"{lacking.path}: {len(lacking.sampled)} of {len(lacking)} steps were rendered",
        why="the picture of the step before would be an older one than in the evaluation",
        fix="collect with render_every 1, or use a network that sees one moment",
    )


def _changed(then: dict[str, Any], now: dict[str, Any]) -> RdtlError:
    found = f"{now['size']} bytes, time {now['mtime_ns']} ns" if now else "no longer there"
    return RdtlError(
        "RDTL-D028",
        "a data file has changed since it was opened",
        where=f"{then['path']}: {found}; it was {then['size']} bytes, {then['mtime_ns']} ns",
        why="lengths and offsets in memory are those of the older file",
        fix="let nothing write to the data of a run, and start again",
    )
