"""The guard: it outlives what goes wrong, and gives nothing back while an `up` is at work."""

from __future__ import annotations

import threading

import pytest

from launcher.core.errors import RdtlError
from launcher.providers import give_back, guard, job, rentals
from launcher.providers.ledger import ENDING, Ledger
from launcher.providers.rental import Rental
from launcher.providers.vast import Vast
from tests.providers.fake_vast import FakeVast
from tests.providers.test_coming_back import rented

pytestmark = pytest.mark.usefixtures("quick")


def test_the_guard_outlives_what_goes_wrong_and_sees_the_last_request(
    ledger: Ledger, client: Vast, bare: FakeVast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "EVERY_S", 0.05)
    monkeypatch.setattr(guard, "LATE_S", 0.0)
    number = rented(ledger, bare, 1, recipe={"name": "x", "down_after": True})
    there, requests = guard._there, []

    def ask(*_: object) -> bool:
        give_back.give_back(ledger, client, ledger.rental("job"), number, "test")
        raise ValueError("a box that answers anything")

    def look(ledger: Ledger) -> list[Rental]:
        """In the moment between the last look and the end of the guard, a request begins."""
        found = there(ledger)
        if not found and not requests:
            requests.append(ledger.attempt("job", 2, 1002, 2.1, 0.05))
            guard.start(ledger)  # it finds the lock taken
        return found

    monkeypatch.setattr(rentals, "if_proven", ask)
    monkeypatch.setattr(guard, "_there", look)
    said: list[str] = []
    watch = threading.Thread(target=guard.watch, args=(ledger, client, said.append), daemon=True)
    watch.start()
    watch.join(1.5)
    assert watch.is_alive() and requests
    assert any("a box that answers anything" in text for text in said)
    ledger.write("nothing", "job", label=requests[0])
    watch.join(10)
    assert not watch.is_alive()


def test_the_guard_gives_nothing_back_on_which_new_work_begins(
    ledger: Ledger, client: Vast, bare: FakeVast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the work before is proven, so its box would go while the new one is being sent."""
    monkeypatch.setattr(job, "proof", lambda *_: job.Proof(("store:there",)))
    recipe = {"name": "x", "profile": None, "down_after": True}
    number = rented(ledger, bare, 1, recipe=recipe)
    said: list[str] = []
    with ledger.held("job"), ledger.held("job", ENDING):  # as `rdtl cloud up` begins
        guard._round(ledger, client, guard._there(ledger), said.append)
        assert (bare.alive, said) == ([number], [])
    with ledger.held("job"):
        guard._round(ledger, client, guard._there(ledger), said.append)
    assert bare.alive == [] and ledger.rental("job").over


def test_who_looks_at_the_end_waits_for_the_guard(ledger: Ledger) -> None:
    inside, leave = threading.Event(), threading.Event()

    def rounds() -> None:
        with ledger.held("job", ENDING):
            inside.set()
            leave.wait(60)

    guarding = threading.Thread(target=rounds)
    guarding.start()
    assert inside.wait(60)
    with pytest.raises(RdtlError, match="RDTL-B067"), ledger.held("job", ENDING, 0.3):
        pass
    threading.Timer(0.3, leave.set).start()
    with ledger.held("job", ENDING, 60.0):
        assert leave.is_set()
    guarding.join()
