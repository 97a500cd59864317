"""What an epoch shows: every step once, 63 % of them, one of each file, or never how it ends."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from rdt.data import coverage
from rdt.data.order import Order
from rdt.data.store import open_store
from tests.rdt import synthetic

LENGTHS = np.full(50, 213)


def rows(epochs: int = 1) -> dict[str, coverage.Coverage]:
    return {row.order: row for row in coverage.table(LENGTHS, 64, seed=2, epochs=epochs)}


def test_one_epoch_of_fifty_demonstrations() -> None:
    found = rows()
    assert found["enumerate"] == ("enumerate", "all", 1.0, 0.0, 1, 1)
    assert found["random"].seen == pytest.approx(1 - np.exp(-1), abs=0.012)
    assert (found["random"].fewest, found["random"].never) == (0, 0.0)
    assert found["tail-dropping"].never == pytest.approx(64 / 213)
    assert found["tail-dropping"].seen < 0.7


def test_more_epochs_help_all_but_the_tail() -> None:
    found = rows(epochs=10)
    assert found["enumerate"][2:] == (1.0, 0.0, 10, 10)
    assert found["random"].seen > 0.9998
    assert found["tail-dropping"].seen == pytest.approx(149 / 213, abs=0.001)


def test_windows() -> None:
    """The release at the end of an episode, beside its beginning."""
    row = np.tile(np.arange(213), 50)
    windows = {"start": row < 20, "release": row >= 193}
    found = {(r.order, r.window): r for r in coverage.table(LENGTHS, 64, seed=2, windows=windows)}
    assert found["enumerate", "release"].seen == 1.0
    assert found["tail-dropping", "release"][2:] == (0.0, 1.0, 0, 0)
    assert found["tail-dropping", "start"].never == 0.0
    assert found["tail-dropping", "start"].seen > found["random", "start"].seen


def test_episodes_no_longer_than_a_chunk() -> None:
    found = {r.order: r for r in coverage.table(np.array([5, 64, 70]), 64, seed=1)}
    assert found["enumerate"].seen == 1.0
    assert found["tail-dropping"].never == pytest.approx((5 + 64 + 64) / 139)
    none = {r.order: r for r in coverage.table(np.array([5, 64]), 64, seed=1)}
    assert none["tail-dropping"][2:] == (0.0, 1.0, 0, 0)


def test_files_that_are_counted_for_samples(tmp_path: Path) -> None:
    """RDTL-D010: torch's loader over a set whose length is its files shows one step of each."""
    from torch.utils.data import DataLoader, Dataset

    files = [tmp_path / f"task_{number}_demo.hdf5" for number in range(5)]
    for number, path in enumerate(files):
        synthetic.write(path, {"demo_0": synthetic.demonstration(number, every=1)})

    class OfFiles(Dataset[tuple[int, int]]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, number: int) -> tuple[int, int]:
            with h5py.File(files[number]) as file:
                steps = len(file["data/demo_0/actions"])
            return number, int(np.random.default_rng(number).integers(steps))

    theirs = {tuple(map(int, sample)) for sample in DataLoader(OfFiles(), batch_size=None)}
    assert len(theirs) == 5
    store = open_store(tmp_path)
    order = Order((len(store.sampled),), seed=1)
    ours = store.sampled[order.at(np.arange(order.epoch))]
    assert order.epoch == len(store) == 5 * 24
    assert sorted(ours) == list(range(5 * 24))
