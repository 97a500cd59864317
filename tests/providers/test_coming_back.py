"""Boxes that stop late, come back, or are left out: hours count, caps hold, nothing is wiped.

Nothing boots here: it is about what the provider says and what the ledger makes of it.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from launcher.core.errors import RdtlError
from launcher.providers import access, caps, give_back, job, reconcile, rental, rentals
from launcher.providers.ledger import Ledger
from launcher.providers.phases import Patience
from launcher.providers.provider import Order
from launcher.providers.rent import Renting
from launcher.providers.rental import Caps, Rental, Rented
from launcher.providers.vast import Vast
from tests.providers.boxes import Boxes, needs_boxes
from tests.providers.fake_vast import FakeVast, offer
from tests.providers.test_rent import WANTED, begin, ready

pytestmark = pytest.mark.usefixtures("quick")
HASTY = Patience(loading=0.5, ssh=0.1)
LITTLE = Caps(3.0, 0.001, 20.0)
"""Less than a minute: every box is over it."""


def rented(ledger: Ledger, fake: FakeVast, number: int, name: str = "job", **changes: Any) -> int:
    """A box that is ready, of a rental that is there or begins now."""
    if name not in ledger.rentals():
        given = {"caps": Caps(3.0, 10.0, 20.0), "interruptible": False, "recipe": {}, **changes}
        ledger.begin(Rental(name, "vast", time.time(), WANTED.to_dict(), **given))
    label = ledger.attempt(name, number, 1000 + number, 2.1, 0.05)
    body = {"image": "x", "label": label}
    _, answer = fake.answer("PUT", f"/api/v0/asks/{number}/", {}, body)
    ledger.write("created", name, label=label, box=answer["new_contract"])
    ledger.write("ready", name, box=answer["new_contract"], address=["127.0.0.1", 9])
    return int(answer["new_contract"])


def box(ledger: Ledger, number: int, name: str = "job") -> Rented:
    return ledger.rental(name).boxes[number]


def state(fake: FakeVast, number: int) -> str:
    return str(fake.contracts[number].data["actual_status"])


def quiet(text: str) -> None:
    """Nobody listens."""


@pytest.mark.slow
def test_a_stop_is_only_believed_when_it_is_seen(
    ledger: Ledger, client: Vast, bare: FakeVast, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = rented(ledger, bare, 1)
    reconcile.reconcile(ledger, client)
    bare.stop_s = 0.6
    caps.end(ledger, client, ledger.rental("job"), box(ledger, number), quiet)
    assert state(bare, number) == "exited"
    assert box(ledger, number).stopped is not None
    bare.resume(number)
    bare.stop_s = 60
    monkeypatch.setattr(give_back, "STOP_LOOKS", (0.0, 0.1))
    reconcile.reconcile(ledger, client)
    with pytest.raises(RdtlError, match="B004"):
        caps.end(ledger, client, ledger.rental("job"), box(ledger, number), quiet)
    assert box(ledger, number).stopped is None


def test_a_box_that_runs_again_is_capped_again(
    ledger: Ledger, client: Vast, bare: FakeVast
) -> None:
    number = rented(ledger, bare, 1, caps=LITTLE)
    caps.enforce(ledger, client, quiet)
    assert state(bare, number) == "exited"
    bare.resume(number)
    assert caps.enforce(ledger, client, quiet).rentals["job"].boxes[number].stopped is not None
    assert state(bare, number) == "exited"


@pytest.mark.parametrize("ended", ["killed", pytest.param("late", marks=pytest.mark.slow)])
def test_a_box_that_a_cap_stopped_was_not_taken_away_whoever_sees_it_first(
    ledger: Ledger, client: Vast, bare: FakeVast, monkeypatch: pytest.MonkeyPatch, ended: str
) -> None:
    monkeypatch.setattr(give_back, "STOP_LOOKS", (0.0,))
    number = rented(ledger, bare, 1, interruptible=True)
    stop = client.stop

    def killed(box: int) -> None:
        stop(box)
        raise KeyboardInterrupt

    bare.stop_s = 0.2
    if ended == "killed":
        monkeypatch.setattr(client, "stop", killed)
    with pytest.raises((KeyboardInterrupt, RdtlError)):
        caps.end(ledger, client, ledger.rental("job"), box(ledger, number), quiet)
    time.sleep(0.3)
    reconcile.reconcile(ledger, client)
    assert box(ledger, number).stopped is not None
    with pytest.raises(RdtlError, match="RDTL-B004"):  # it does not answer here, and is kept
        Renting(ledger, client, "job", HASTY, quiet, lambda: None).ready()
    assert bare.alive == [number]


def test_a_box_that_an_earlier_version_stopped_at_a_cap_was_not_taken_away(
    ledger: Ledger, client: Vast, bare: FakeVast
) -> None:
    number = rented(ledger, bare, 1, interruptible=True)
    reconcile.reconcile(ledger, client)
    client.stop(number)
    ledger.write("stopped", "job", box=number, why="cap", at_cap=True)
    with pytest.raises(RdtlError, match="RDTL-B004"):  # it does not answer here, and is kept
        Renting(ledger, client, "job", HASTY, quiet, lambda: None).ready()
    assert bare.alive == [number]


def test_a_machine_that_was_offline_costs_again(
    ledger: Ledger, client: Vast, bare: FakeVast
) -> None:
    number = rented(ledger, bare, 1)
    bare.offline = {number}
    reconcile.reconcile(ledger, client)
    assert box(ledger, number).stopped is not None
    bare.offline = set()
    reconcile.reconcile(ledger, client)
    now = box(ledger, number)
    assert (now.stopped, now.at_cap) == (None, False)


def test_a_list_without_a_box_proves_nothing(ledger: Ledger, client: Vast, bare: FakeVast) -> None:
    number = rented(ledger, bare, 1)
    reconcile.reconcile(ledger, client)
    bare.hidden = {number: 1}
    with pytest.raises(RdtlError, match="B006"):
        rentals.down(ledger, client, "job", quiet, force=False)
    assert bare.alive == [number]
    assert box(ledger, number).missing is not None
    reconcile.reconcile(ledger, client)
    assert box(ledger, number).missing is None


def test_a_box_that_was_believed_gone_counts_from_the_beginning(
    ledger: Ledger, client: Vast, bare: FakeVast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "LISTED_S", 0.0)
    number = rented(ledger, bare, 1)
    began = box(ledger, number).running_since
    bare.hidden = {number: 2}
    reconcile.reconcile(ledger, client)
    reconcile.reconcile(ledger, client)
    assert box(ledger, number).ended is not None
    ledger.write("closed", "job")
    seen = reconcile.reconcile(ledger, client)
    assert [one.severity for one in seen.findings] == ["error"]  # closed, and it costs
    assert (box(ledger, number).ended, box(ledger, number).running_since) == (None, began)


def again(ledger: Ledger, client: Vast) -> Rental:
    """What the same `rdtl cloud up` begins with."""
    allowed = ledger.rental("job").caps
    return rentals.begin(ledger, client, "job", WANTED, allowed, interruptible=False, recipe={})


@pytest.mark.parametrize("anew", [False, True])
def test_nothing_is_rented_for_a_rental_that_was_given_back(
    ledger: Ledger, client: Vast, bare: FakeVast, anew: bool
) -> None:
    rented(ledger, bare, 1)
    renting = Renting(ledger, client, "job", HASTY, quiet, lambda: None)
    rentals.down(ledger, client, "job", quiet, force=True)
    if anew:
        again(ledger, client)
    with pytest.raises(RdtlError, match="RDTL-B066"):
        renting.ready()
    assert (len(bare.contracts), bare.alive) == (1, [])


def test_a_request_that_comes_while_it_is_given_back_is_not_sent(
    ledger: Ledger, client: Vast, bare: FakeVast, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = rented(ledger, bare, 1)
    give_back.give_back(ledger, client, ledger.rental("job"), number, "test")
    renting = Renting(ledger, client, "job", HASTY, quiet, lambda: None)
    attempt = ledger.attempt

    def late(*facts: Any) -> str:
        label = attempt(*facts)
        with pytest.raises(RdtlError, match="RDTL-B065"):  # it sees the request
            rentals.down(ledger, client, "job", quiet, force=True)
        return label

    monkeypatch.setattr(ledger, "attempt", late)
    with pytest.raises(RdtlError, match="RDTL-B066"):
        renting.ready()
    assert len(bare.contracts) == 1
    assert ledger.rental("job").over


def test_what_is_being_given_back_is_closed_before_and_nothing_begins_over_it(
    ledger: Ledger, client: Vast, bare: FakeVast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(give_back, "LOOKS", (0.0, 0.05))
    number, destroy = rented(ledger, bare, 1), client.destroy
    ledger.attempt("job", 2, 1002, 2.1, 0.05)  # its sender is this process: it may still come
    monkeypatch.setattr(client, "destroy", quiet)
    with pytest.raises(RdtlError, match="RDTL-B004"):
        rentals.down(ledger, client, "job", quiet, force=True)
    assert (ledger.rental("job").closed, bare.alive) == (True, [number])
    monkeypatch.setattr(client, "destroy", destroy)
    with pytest.raises(RdtlError, match="RDTL-B065"):
        rentals.down(ledger, client, None, quiet, force=True)
    assert bare.alive == []
    with pytest.raises(RdtlError, match="RDTL-B069"):  # its label would be forgotten
        again(ledger, client)


@needs_boxes
def test_two_boxes_with_something_on_them_are_both_kept(
    ledger: Ledger, vast: Vast, fake: FakeVast
) -> None:
    fake.offers = {1: offer(1), 2: offer(2)}
    numbers = [rented(ledger, fake, 1), rented(ledger, fake, 2)]
    with pytest.raises(RdtlError, match="B006"):
        ready(ledger, vast)
    assert fake.alive == numbers


@pytest.mark.slow
@needs_boxes
def test_of_two_boxes_the_one_with_something_on_it_goes_on(
    ledger: Ledger, vast: Vast, fake: FakeVast
) -> None:
    fake.offers = {1: offer(1), 2: offer(2)}
    first, second = rented(ledger, fake, 1), rented(ledger, fake, 2)
    ledger.write("proven", "job", box=second, places=["elsewhere"])
    caps.end(ledger, vast, ledger.rental("job"), box(ledger, first), quiet)
    assert ready(ledger, vast).box == first
    assert fake.alive == [first]


def test_a_box_that_cannot_be_ended_holds_up_no_other(
    ledger: Ledger, client: Vast, bare: FakeVast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(give_back, "STOP_LOOKS", (0.0, 0.1))
    first = rented(ledger, bare, 1, "first", caps=LITTLE)
    second = rented(ledger, bare, 2, "second", caps=LITTLE)
    stop = client.stop

    def odd(number: int) -> None:
        if number == first:
            raise ValueError("an answer that was never seen before")
        stop(number)

    monkeypatch.setattr(client, "stop", odd)
    said: list[str] = []
    caps.enforce(ledger, client, said.append)
    assert (state(bare, first), state(bare, second)) == ("running", "exited")
    assert any(f"box {first} of first could not be ended" in text for text in said)


@needs_boxes
def test_a_full_disk_ends_no_cap(client: Vast, bare: FakeVast, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", full], check=True)
    try:
        small = Ledger(full / "state")
        bare.offers[1]["dph_total"] = 2.2  # so that already the look at the list has to write
        number = rented(small, bare, 1, caps=LITTLE)
        with pytest.raises(OSError, match="No space left"):
            while True:
                small.write("fill", "job", much="x" * 512)
        with pytest.raises(OSError, match="No space left"):
            while True:
                small.write("fill", "job")
        with pytest.raises(OSError, match="No space left"):
            caps.enforce(small, client, quiet)
        assert state(bare, number) == "exited"
    finally:
        subprocess.run(["umount", full], check=True)


def test_another_profile_is_other_work(ledger: Ledger, client: Vast, bare: FakeVast) -> None:
    """Its uploads would be proven, and the box given back, while the first one still trains."""
    rented(ledger, bare, 1, recipe={"name": "x", "profile": "as-noted"})
    allowed = ledger.rental("job").caps
    with pytest.raises(RdtlError, match="x, profile as-noted on"):
        rentals.begin(
            ledger, client, "job", WANTED, allowed, interruptible=False,
            recipe={"name": "x", "profile": "fixed"},
        )  # fmt: skip


@needs_boxes
@pytest.mark.parametrize(
    "words", [pytest.param("sleep 60", marks=pytest.mark.slow), "echo nonsense"]
)
def test_what_a_box_answers_has_a_deadline_and_any_form(
    ledger: Ledger, vast: Vast, fake: FakeVast, boxes: Boxes,
    monkeypatch: pytest.MonkeyPatch, words: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(job, "ANSWER_S", 2.0)
    fake.offers = {1: offer(1)}
    begin(ledger)
    number = ready(ledger, vast).box
    shell = boxes.folder(number) / "bin" / "sh"
    shell.write_text(f"#!/bin/bash\n{words}\n")
    shell.chmod(0o755)
    seen = reconcile.reconcile(ledger, vast)
    one = seen.rentals["job"]
    one.recipe = {"name": "x", "profile": None}
    began = time.monotonic()
    assert rentals.prove(ledger, seen, one, one.boxes[number]).missing
    assert time.monotonic() - began < 15


@pytest.mark.slow
@needs_boxes
def test_a_connection_that_is_turned_away_once_is_no_answer(
    ledger: Ledger, vast: Vast, fake: FakeVast, boxes: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rentals, "AGAIN_S", 0.1)
    fake.offers = {1: offer(1)}
    begin(ledger)
    number = ready(ledger, vast).box
    shell, turned = boxes.folder(number) / "bin" / "sh", boxes.folder(number) / "turned-away"
    shell.write_text(
        f'#!/bin/bash\n[ -e {turned} ] || {{ > {turned}; exit 255; }}\nexec /bin/sh "$@"\n'
    )
    shell.chmod(0o755)
    seen = reconcile.reconcile(ledger, vast)
    one = seen.rentals["job"]
    one.recipe = {"name": "x", "profile": None}
    found = rentals.prove(ledger, seen, one, one.boxes[number])
    assert turned.exists() and found.reached and "was not started" in found.missing, found


@needs_boxes
def test_a_box_that_is_taken_away_or_talks_nonsense_is_told(
    ledger: Ledger, vast: Vast, fake: FakeVast, boxes: Boxes
) -> None:
    fake.offers = {1: offer(1)}
    begin(ledger)
    number = ready(ledger, vast).box
    (address,) = {one for box in vast.boxes() for one in box.addresses[:1]}
    link = access.connection(ledger, "job", number, address, alone=True)
    assert access.ask(link, ".").gpus
    python = boxes.folder(number) / "bin" / "python3"
    python.unlink(missing_ok=True)
    python.write_text("#!/bin/sh\ncat > /dev/null\necho welcome\n")
    python.chmod(0o755)
    with pytest.raises(RdtlError, match="RDTL-B068"):
        access.ask(link, ".")
    place = job.RentedPlace("box 1", link, alive=lambda: "exited", asked=[0.0])
    with pytest.raises(RdtlError, match="RDTL-B066"):
        place.run(["true"])
    with pytest.raises(RdtlError, match="RDTL-B062"):
        vast.create(99, Order("rdtl-of-an-offer-that-is-gone", "image", 40.0))


def test_a_new_price_counts_from_then_on_and_is_held_to_the_cap(
    ledger: Ledger, client: Vast, bare: FakeVast
) -> None:
    number = rented(ledger, bare, 1)
    reconcile.reconcile(ledger, client)
    bare.contracts[number].data["dph_total"] = 9.0
    said: list[str] = []
    caps.enforce(ledger, client, said.append)
    assert state(bare, number) == "exited"
    assert "3.00 $/h" in said[0]


def test_hours_are_paid_at_the_price_they_had() -> None:
    wanted, allowed = WANTED.to_dict(), vars(Caps(3.0, 10.0, 20.0))
    begun = {"provider": "vast", "wanted": wanted, "caps": allowed, "interruptible": False}
    tried = {"label": "l", "offer": 1, "machine": 1, "price": 2.0, "storage": 0.0, "owner": {}}
    lines: list[dict[str, Any]] = [
        {"event": "begin", "time": 0, "recipe": {}, **begun},
        {"event": "try", "time": 0, **tried},
        {"event": "created", "time": 0, "label": "l", "box": 1},
        {"event": "price", "time": 3600, "box": 1, "price": 1.0},  # what it cost from the start
        {"event": "price", "time": 7200, "box": 1, "price": 4.0},
        {"event": "stopped", "time": 10800, "box": 1},
    ]
    found = rental.all_of({**line, "rental": "job"} for line in lines)["job"]
    assert found.spent(99999) == pytest.approx(1.0 + 1.0 + 4.0)
    assert found.boxes[1].hours == pytest.approx(3.0)
