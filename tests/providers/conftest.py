"""A market with real machines behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.providers import rent
from launcher.providers.http import Api
from launcher.providers.ledger import Ledger
from launcher.providers.vast import Vast
from tests.providers.boxes import Boxes
from tests.providers.fake_vast import KEY, FakeVast, offer, serve


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[Boxes]:
    made = Boxes(tmp_path / "boxes")
    yield made
    made.close()


@pytest.fixture
def fake(boxes: Boxes) -> Iterator[FakeVast]:
    with serve(FakeVast(boxes)) as served:
        yield served


@pytest.fixture
def vast(fake: FakeVast) -> Vast:
    return Vast(Api(fake.url, KEY, waits=(0.02, 0.04, 0.08)))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "state")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks for a lost answer follow each other quickly."""
    monkeypatch.setattr(rent, "LOOKS", (0.1, 0.2))


@pytest.fixture
def bare() -> Iterator[FakeVast]:
    market = FakeVast()
    market.loading_s = 0.0
    market.offers = {n: offer(n) for n in range(1, 6)}
    with serve(market):
        yield market


@pytest.fixture
def client(bare: FakeVast) -> Vast:
    return Vast(Api(bare.url, KEY, waits=(0.02,)))
