"""What the ledger remembers, what it may cost, and what is done about it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from launcher.core.errors import RdtlError
from launcher.providers import access, caps, give_back, guard, reconcile, rentals
from launcher.providers.ledger import Ledger
from launcher.providers.phases import Patience
from launcher.providers.rental import Caps
from launcher.providers.vast import Vast
from tests.providers.boxes import Boxes, needs_boxes
from tests.providers.fake_vast import FakeVast, Fault, offer
from tests.providers.test_rent import WANTED, begin, ready

pytestmark = [needs_boxes, pytest.mark.usefixtures("quick")]


@pytest.mark.slow
@pytest.mark.parametrize("destroy", [False, True])
def test_the_guard_ends_a_box_before_its_cap_and_then_itself(
    ledger: Ledger, vast: Vast, fake: FakeVast, monkeypatch: pytest.MonkeyPatch, destroy: bool
) -> None:
    monkeypatch.setattr(caps, "SHORTEST_H", 12 / 3600)
    monkeypatch.setattr(caps, "LEAD_S", 10.0)
    monkeypatch.setattr(guard, "EVERY_S", 2.0)
    monkeypatch.setattr(guard, "LATE_S", 0.0)
    fake.offers = {1: offer(1)}
    allowed = Caps(3.0, 10.0, 2.1 * 20 / 3600, destroy)  # twenty seconds of it
    begin(ledger, caps=allowed)
    box = ready(ledger, vast).box
    said: list[str] = []
    watch = threading.Thread(target=guard.watch, args=(ledger, vast, said.append), daemon=True)
    watch.start()
    deadline = time.monotonic() + 30
    while box in fake.alive and fake.contracts[box].data["actual_status"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert fake.cost() <= allowed.total
    assert any("RDTL-B064" in text for text in said)
    if not destroy:
        assert fake.alive == [box]  # its disk may hold what was not uploaded
        with pytest.raises(RdtlError, match="B064"):
            ready(ledger, vast)
        rentals.down(ledger, vast, "job", said.append, force=True)
    watch.join(timeout=10)
    assert not watch.is_alive()
    assert fake.alive == []


@pytest.mark.parametrize("interruptible", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_stopped_box_goes_on_when_the_caps_are_raised(
    ledger: Ledger, vast: Vast, fake: FakeVast, interruptible: bool
) -> None:
    fake.offers = {1: offer(1)}
    begin(ledger, interruptible=interruptible)
    box = ready(ledger, vast).box
    rental = ledger.rental("job")
    caps.end(ledger, vast, rental, rental.boxes[box], lambda text: None)
    assert fake.contracts[box].data["actual_status"] == "exited"
    worked = ledger.rental("job").boxes[box].hours
    assert ready(ledger, vast).box == box
    now = ledger.rental("job").boxes[box]
    assert (now.hours, now.stopped, now.at_cap) == (worked, None, False)
    assert len(fake.contracts) == 1


def test_a_box_of_a_closed_rental_is_found(ledger: Ledger, vast: Vast, fake: FakeVast) -> None:
    fake.offers = {1: offer(1)}
    begin(ledger)
    label = ledger.attempt("job", 1, 1001, 2.1, 0.05)
    ledger.write("nothing", "job", label=label)
    ledger.write("closed", "job")
    fake.answer("PUT", "/api/v0/asks/1/", {}, {"image": "x", "label": label})  # much later
    seen = reconcile.reconcile(ledger, vast)
    assert [one.severity for one in seen.findings] == ["warning", "error"]
    with pytest.raises(RdtlError, match="B069"):
        allowed = ledger.rental("job").caps
        rentals.begin(ledger, vast, "job", WANTED, allowed, interruptible=False, recipe={})
    rentals.down(ledger, vast, "job", lambda text: None, force=False)
    assert fake.alive == []


@pytest.mark.slow
def test_a_box_that_the_provider_lost_costs_no_more(
    ledger: Ledger, vast: Vast, fake: FakeVast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "LISTED_S", 0.0)
    fake.offers = {1: offer(1), 2: offer(2)}
    begin(ledger)
    first = ready(ledger, vast).box
    fake.answer("DELETE", f"/api/v0/instances/{first}/", {}, None)  # by hand, on its page
    second = ready(ledger, vast).box
    assert fake.alive == [second] != [first]


def test_only_own_boxes_are_destroyed(ledger: Ledger, vast: Vast, fake: FakeVast) -> None:
    fake.offers = {1: offer(1)}
    begin(ledger)
    fake.answer("PUT", "/api/v0/asks/1/", {}, {"image": "x", "label": "of another"})
    with pytest.raises(RdtlError, match="B006"):
        give_back.give_back(ledger, vast, ledger.rental("job"), 9000, "test")
    assert fake.alive == [9000]


@pytest.mark.slow
def test_a_box_that_does_not_go_is_told(
    ledger: Ledger, vast: Vast, fake: FakeVast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(give_back, "LOOKS", (0.0, 0.05))
    fake.offers = {1: offer(1)}
    begin(ledger)
    box = ready(ledger, vast).box
    monkeypatch.setattr(fake, "_destroy", lambda query, body, number: (200, {"success": True}))
    with pytest.raises(RdtlError, match="B004"):
        rentals.down(ledger, vast, "job", lambda text: None, force=True)
    assert [one.id for one in ledger.rental("job").open_boxes] == [box]


def test_a_changed_host_key_keeps_the_box_and_shuts_it_out(
    ledger: Ledger, vast: Vast, fake: FakeVast, boxes: Boxes
) -> None:
    fake.offers = {1: offer(1)}
    begin(ledger)
    box = ready(ledger, vast).box
    boxes.new_host_key(box)
    boxes.boot(fake.contracts[box].data)
    with pytest.raises(RdtlError, match="B013"):
        ready(ledger, vast)
    assert fake.alive == [box]


@pytest.mark.slow
def test_a_box_that_may_hold_something_is_kept_though_it_does_not_answer(
    ledger: Ledger, vast: Vast, fake: FakeVast, boxes: Boxes
) -> None:
    fake.offers = {1: offer(1), 2: offer(2)}
    begin(ledger)
    box = ready(ledger, vast).box
    boxes.off(box)
    with pytest.raises(RdtlError, match="B004"):
        ready(ledger, vast, Patience(ssh=0.5))
    (boxes.folder(box) / "gpus.csv").write_text("")
    boxes.boot(fake.contracts[box].data)
    with pytest.raises(RdtlError, match="B001"):
        ready(ledger, vast)
    assert fake.alive == [box]


def test_without_room_for_the_ledger_nothing_is_rented(
    vast: Vast, fake: FakeVast, tmp_path: Path
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", full], check=True)
    try:
        small = Ledger(full / "state")
        fake.offers = {1: offer(1)}
        begin(small)
        access.key(small)
        with (full / "fill").open("wb", buffering=0) as handle, pytest.raises(OSError):
            while True:
                handle.write(b"x" * 512)
        with pytest.raises(OSError, match="No space left"):
            while True:
                small.write("fill", "job")
        with pytest.raises(OSError, match="No space left"):
            ready(small, vast)
        assert fake.contracts == {}
    finally:
        subprocess.run(["umount", full], check=True)


def test_a_torn_line_loses_only_itself(ledger: Ledger) -> None:
    begin(ledger)
    path = ledger.root / "ledger.jsonl"
    with path.open("a") as handle:
        handle.write('{"time": 1, "event": "clo')  # killed here
    label = ledger.attempt("job", 1, 1001, 2.1, 0.05)
    assert not ledger.rental("job").closed
    assert [one.label for one in ledger.rental("job").unclear] == [label]


def test_many_writers_lose_no_line(ledger: Ledger, tmp_path: Path) -> None:
    begin(ledger)
    code = (
        "import sys; from pathlib import Path; from launcher.providers.ledger import Ledger\n"
        "for n in range(40): Ledger(Path(sys.argv[1])).write('x', 'job', n=n)"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, ledger.root]) for _ in range(3)]
    assert [one.wait(60) for one in started] == [0, 0, 0]
    lines = (ledger.root / "ledger.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 121


def test_two_programs_do_not_rent_for_one_name(ledger: Ledger) -> None:
    with ledger.held("job"), pytest.raises(RdtlError, match="B067"), ledger.held("job"):
        raise AssertionError


def test_a_silent_provider_is_told_and_changes_nothing(
    ledger: Ledger, vast: Vast, fake: FakeVast
) -> None:
    fake.offers = {1: offer(1)}
    begin(ledger)
    box = ready(ledger, vast).box
    fake.faults = [Fault("GET", r"/api/v1/instances/", status=503, times=4)]
    with pytest.raises(RdtlError, match="B060"):
        caps.enforce(ledger, vast, lambda text: None)
    assert [one.id for one in ledger.rental("job").open_boxes] == [box] == fake.alive
