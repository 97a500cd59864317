"""Rentals against a market that fails in every way that it can."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from launcher.cli import cloud_boxes
from launcher.core.errors import RdtlError
from launcher.providers import access, reconcile, rent
from launcher.providers.ledger import Ledger
from launcher.providers.phases import Patience, Ready
from launcher.providers.rent import Renting
from launcher.providers.rental import Caps, Rental
from launcher.providers.vast import Vast
from launcher.providers.wanted import Facts, Wanted
from launcher.ssh import Connection
from tests.later import slow
from tests.providers.boxes import Boxes, needs_boxes
from tests.providers.fake_vast import KEY, FakeVast, Fault, offer

pytestmark = [needs_boxes, pytest.mark.usefixtures("quick")]
WANTED = Wanted(gpus=2, gpu=r"RTX PRO 6000.*", vram_gb=96, disk_gb=0.1, download_mbps=500)


def begin(ledger: Ledger, **changes: Any) -> Rental:
    given = {"caps": Caps(3.0, 10.0, 20.0), "interruptible": False, **changes}
    return ledger.begin(Rental("job", "vast", time.time(), WANTED.to_dict(), recipe={}, **given))


def ready(ledger: Ledger, vast: Vast, patience: Patience | None = None) -> Ready:
    said: list[str] = []
    patience = patience or Patience(loading=10, ssh=10)
    return Renting(ledger, vast, "job", patience, said.append, lambda: None).ready()


def test_the_cheapest_box_that_fits_is_rented_and_proven(
    ledger: Ledger, vast: Vast, fake: FakeVast
) -> None:
    fake.offers = {n: offer(n, dph_total=3.0 - n / 10) for n in (1, 2)}
    fake.offers[3] = offer(3, dph_total=0.5, gpu_name="RTX 4090", gpu_ram=24564)
    begin(ledger)
    found = ready(ledger, vast)
    assert fake.contracts[found.box].data["machine_id"] == 1002
    assert found.facts.gpus == (("NVIDIA RTX PRO 6000 WS", 97.887),) * 2
    rental = ledger.rental("job")
    assert [box.ready for box in rental.open_boxes] == [True]
    assert ready(ledger, vast).box == found.box  # the same command goes on with it
    assert len(fake.contracts) == 1


def test_offers_are_held_to_the_filters_again(ledger: Ledger, vast: Vast, fake: FakeVast) -> None:
    fake.deaf_filters = True
    fake.offers = {
        1: offer(1, num_gpus=1, dph_total=0.2),
        2: offer(2, gpu_name="RTX 4090", dph_total=0.3),
        3: offer(3, gpu_ram=48000, dph_total=0.4),
        4: offer(4, disk_space=0.01, dph_total=0.5),
        5: offer(5, inet_down=20.0, dph_total=0.6),
        6: offer(6, dph_total=9.0),
        7: offer(7, reliability=0.2, dph_total=0.7),
    }
    begin(ledger)
    with pytest.raises(RdtlError, match="B063"):
        ready(ledger, vast)
    fake.offers[8] = offer(8, dph_total=2.9)
    assert fake.contracts == {}
    assert fake.contracts[ready(ledger, vast).box].data["machine_id"] == 1008


def test_an_offer_that_is_gone_is_followed_by_the_next(
    ledger: Ledger, vast: Vast, fake: FakeVast
) -> None:
    fake.offers = {n: offer(n, dph_total=1 + n / 10) for n in (1, 2)}
    fake.faults = [Fault("PUT", r"/api/v0/asks/1/", status=404)]
    begin(ledger)
    assert fake.contracts[ready(ledger, vast).box].data["machine_id"] == 1002


def test_a_price_that_changed_above_the_cap_is_not_paid(
    ledger: Ledger, vast: Vast, fake: FakeVast
) -> None:
    fake.offers = {n: offer(n, dph_total=1 + n / 10) for n in (1, 2)}
    fake.price_at_rent = {1: 7.0}
    begin(ledger)
    found = ready(ledger, vast)
    assert fake.alive == [found.box]
    assert fake.contracts[found.box].data["machine_id"] == 1002


@pytest.mark.parametrize("what", ["stuck", *slow("no key", "other GPU", "asleep")])
def test_a_box_that_is_not_what_was_wanted_is_given_back(
    ledger: Ledger,
    vast: Vast,
    fake: FakeVast,
    boxes: Boxes,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake.offers = {n: offer(n, dph_total=1 + n / 10) for n in (1, 2)}
    if what == "stuck":
        fake.stuck = {1001}
    elif what == "no key":
        fake.lost_keys = {1001}
    elif what == "asleep":
        boxes.asleep = {1001}
        monkeypatch.setattr(access, "ASKING_S", 4.0)
    else:
        boxes.gpu = {1001: "NVIDIA GeForce RTX 4090"}
    begin(ledger)
    found = ready(ledger, vast, Patience(loading=0.5, ssh=0.5))
    assert fake.alive == [found.box]
    assert fake.contracts[found.box].data["machine_id"] == 1002
    assert len(ledger.rental("job").boxes) == 2


@pytest.mark.slow
def test_a_box_that_cannot_download_says_so(ledger: Ledger, vast: Vast, fake: FakeVast) -> None:
    fake.offers = {1: offer(1)}
    begin(ledger)
    said: list[str] = []
    patience = Patience(loading=10, ssh=10, download_url=f"{fake.url}/nowhere")
    with pytest.raises(RdtlError, match="B063"):  # the only offer was tried
        Renting(ledger, vast, "job", patience, said.append, lambda: None).ready()
    (why,) = [text for text in said if "is given back" in text]
    assert "[RDTL-B001] the timed download failed: HTTP Error 401" in why and "Trace" not in why
    assert fake.alive == []


@pytest.mark.slow
def test_a_download_that_fails_once_is_timed_again(
    ledger: Ledger, vast: Vast, fake: FakeVast, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.offers = {1: offer(1)}
    begin(ledger)
    failures, ask = ["HTTP Error 503"], access.ask

    def asked(link: Connection, directory: str, address: str) -> Facts:
        return replace(ask(link, directory), download_failed=failures.pop() if failures else "")

    monkeypatch.setattr(access, "ask", asked)
    assert ready(ledger, vast).box in fake.alive
    assert failures == []


@pytest.mark.slow
def test_a_market_of_broken_boxes_ends_with_nothing_rented(
    ledger: Ledger, vast: Vast, fake: FakeVast, boxes: Boxes
) -> None:
    fake.offers = {n: offer(n) for n in range(1, 9)}
    boxes.gpu = {1000 + n: "NVIDIA L4" for n in range(1, 9)}
    begin(ledger)
    with pytest.raises(RdtlError, match="B004"):
        ready(ledger, vast)
    assert fake.alive == []
    assert len(fake.contracts) == rent.MOST_BOXES


@pytest.mark.slow
def test_boxes_of_earlier_commands_do_not_count(
    ledger: Ledger, vast: Vast, fake: FakeVast, boxes: Boxes
) -> None:
    begin(ledger)
    for number in range(rent.MOST_BOXES):
        label = ledger.attempt("job", number, number, 2.1, 0.05)
        ledger.write("created", "job", label=label, box=number)
        ledger.write("ended", "job", box=number, why="taken away")
    fake.offers = {n: offer(n, dph_total=1 + n / 10) for n in (1, 2)}
    boxes.gpu = {1001: "NVIDIA L4"}
    assert fake.contracts[ready(ledger, vast).box].data["machine_id"] == 1002


@pytest.mark.slow
def test_busy_servers_are_asked_again(ledger: Ledger, vast: Vast, fake: FakeVast) -> None:
    fake.offers = {1: offer(1)}
    fake.faults = [
        Fault("POST", r"/api/v0/bundles/", status=503, times=2),
        Fault("GET", r"/api/v1/instances/", status=429, times=2, headers={"Retry-After": "0.1"}),
        Fault("PUT", r"/api/v0/asks/1/", status=429, headers={"Retry-After": "0.1"}),
        Fault("POST", r"/api/v0/instances/\d+/ssh/", status=502),
    ]
    begin(ledger)
    ready(ledger, vast)
    assert len(fake.contracts) == 1
    assert all(one.times == 0 for one in fake.faults)


@pytest.mark.slow
def test_the_address_that_worked_is_used_again(ledger: Ledger, vast: Vast, fake: FakeVast) -> None:
    fake.offers, fake.relay_only = {1: offer(1)}, True
    begin(ledger)
    found = ready(ledger, vast)
    seen = reconcile.reconcile(ledger, vast)
    assert len(seen.listed[found.box].addresses) == 2
    box, address = cloud_boxes._running(seen, seen.rentals["job"])
    assert (box.id, address) == (found.box, found.address) != seen.listed[found.box].addresses[0]


def test_the_caps_are_watched_before_the_request_goes_out(
    ledger: Ledger, vast: Vast, fake: FakeVast
) -> None:
    fake.offers = {1: offer(1)}
    begin(ledger)
    seen: list[tuple[int, int]] = []

    def watched() -> None:
        seen.append((len(ledger.rental("job").unclear), len(fake.contracts)))

    for _ in range(2):
        Renting(ledger, vast, "job", Patience(10, 10), lambda text: None, watched).ready()
    assert seen == [(1, 0), (0, 1)]  # with the request in the ledger, and for a box that is there


@pytest.mark.parametrize(
    ("status", "text"),
    [(500, "{}"), *slow((524, "<html>"), (200, "<html>")), (200, '{"success": tr')],
)
def test_an_answer_that_nobody_understands_is_looked_up(
    ledger: Ledger, vast: Vast, fake: FakeVast, status: int, text: str
) -> None:
    fake.offers = {1: offer(1), 2: offer(2)}
    fake.faults = [Fault("PUT", r"/api/v0/asks/\d/", after=True, status=status, text=text)]
    begin(ledger)
    assert ready(ledger, vast).box == 9000
    assert fake.alive == [9000]


@pytest.mark.parametrize("done", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_request_without_answer_is_looked_up_and_not_sent_again(
    ledger: Ledger, vast: Vast, fake: FakeVast, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    fake.offers = {1: offer(1), 2: offer(2)}
    fake.faults = [Fault("PUT", r"/api/v0/asks/\d/", after=done, status=0 if done else 504)]
    begin(ledger)
    if done:
        found = ready(ledger, vast)
        assert fake.alive == [found.box]
        assert len(fake.contracts) == 1
        return
    with pytest.raises(RdtlError, match="B065"):
        ready(ledger, vast)
    assert fake.contracts == {}
    monkeypatch.setattr(reconcile, "SETTLE_S", 0.3)
    monkeypatch.setattr(reconcile, "certainly_over", lambda one: True)  # as another process
    ready(ledger, vast)
    assert len(fake.contracts) == 1


def test_what_could_not_be_paid_is_not_rented(ledger: Ledger, vast: Vast, fake: FakeVast) -> None:
    fake.offers = {1: offer(1)}
    begin(ledger, caps=Caps(3.0, 10.0, 0.1))
    with pytest.raises(RdtlError, match="B064"):
        ready(ledger, vast)
    assert fake.contracts == {}


def test_an_interruptible_box_that_is_taken_away_is_replaced(
    ledger: Ledger, vast: Vast, fake: FakeVast
) -> None:
    fake.offers = {n: offer(n, min_bid=0.5 + n / 10) for n in (1, 2)}
    begin(ledger, interruptible=True)
    first = ready(ledger, vast)
    assert fake.contracts[first.box].price == pytest.approx(0.6 * 1.2 + 0.05)
    fake.preempt(first.box)
    second = ready(ledger, vast)
    assert fake.alive == [second.box] != [first.box]
    assert fake.contracts[second.box].data["machine_id"] == 1002


def test_the_key_of_the_account_is_in_no_body_and_on_no_box(
    ledger: Ledger, vast: Vast, fake: FakeVast, boxes: Boxes
) -> None:
    fake.offers = {1: offer(1)}
    begin(ledger)
    found = ready(ledger, vast)
    assert all(KEY not in path + body for _, path, body in fake.requests)
    places = [*boxes.folder(found.box).rglob("*"), *ledger.root.rglob("*")]
    for path in places:
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    assert oct(ledger.root.stat().st_mode)[-3:] == "700"
    assert oct((ledger.root / "ledger.jsonl").stat().st_mode)[-3:] == "600"
