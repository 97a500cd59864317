"""Clients killed, boxes rebooted and taken away, two clients at once: nothing is lost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.providers import market as markets
from tests.providers.boxes import needs_boxes
from tests.providers.fake_vast import Fault
from tests.providers.market import Market, until

pytestmark = [needs_boxes, pytest.mark.slow]


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    with markets.market(tmp_path) as made:
        yield made


def newest(market: Market) -> int:
    path = market.store / "newest"
    return int(path.read_text()) if path.exists() else 0


def begins(market: Market) -> list[str]:
    return (market.store / "begins").read_text().splitlines()


def prepared(market: Market) -> int:
    return sum(len(path.read_text().split()) for path in market.home.glob("prepared.*"))


@pytest.mark.parametrize("carried_out", [True, False])
def test_a_client_killed_while_it_asks_for_a_box(market: Market, carried_out: bool) -> None:
    held = threading.Event()
    market.fake.faults = [
        Fault(
            "PUT",
            r"/api/v0/asks/1/",
            held=held,
            after=carried_out,
            status=0 if carried_out else 503,
        )
    ]
    client = market.popen(*market.words())
    until(lambda: any(verb == "PUT" for verb, _, _ in market.fake.requests))
    assert market.events()[-1] == "try"  # the ledger knew before the provider
    client.kill()
    client.communicate()
    held.set()
    if carried_out:
        until(lambda: len(market.fake.alive) == 1)
    seen = json.loads(market.run("cloud", "status", "--json").stdout)
    rental = seen["rentals"][0]
    assert (len(rental["boxes"]), len(rental["unclear"])) == ((1, 0) if carried_out else (0, 1))
    if not carried_out:
        market.age(200)  # so long after it was sent, nothing comes of a request any more
    done = market.run(*market.words())
    assert done.returncode == 0, done.stderr
    assert len(market.fake.contracts) == 1
    assert begins(market) == ["begins at 0"]


def test_a_client_killed_while_the_box_loads(market: Market) -> None:
    market.fake.loading_s = 4.0
    client = market.popen(*market.words())
    until(lambda: bool(market.fake.alive))
    client.kill()
    client.communicate()
    done = market.run(*market.words())
    assert done.returncode == 0, done.stderr
    assert len(market.fake.contracts) == 1


def test_a_client_killed_while_the_recipe_runs(market: Market) -> None:
    client = market.popen(*market.words("--set", "steps=20"))
    until(lambda: newest(market) >= 2)
    client.kill()
    client.communicate()
    looking = market.run("cloud", "attach")
    assert looking.returncode == 0, looking.stderr
    assert "train: done" in looking.stderr and newest(market) == 20
    done = market.run(*market.words("--set", "steps=20", "--down-after"))
    assert done.returncode == 0, done.stderr
    assert (begins(market), prepared(market)) == (["begins at 0"], 1)
    assert market.fake.alive == []


def test_two_clients_share_one_box(market: Market) -> None:
    market.fake.loading_s = 5.0
    first = market.popen(*market.words())
    until(lambda: bool(market.fake.alive))
    second = market.run(*market.words())
    assert second.returncode == 4 and "RDTL-B067" in second.stderr
    _, said = first.communicate(timeout=120)
    assert first.returncode == 0, said
    assert len(market.fake.contracts) == 1


def test_a_box_that_reboots_goes_on_where_it_was(market: Market) -> None:
    words = market.words("--set", "steps=20")
    client = market.popen(*words)
    until(lambda: newest(market) >= 3)
    box = market.fake.alive[0]
    market.boxes.off(box)
    was = newest(market)
    market.boxes.boot(market.fake.contracts[box].data)
    _, said = client.communicate(timeout=120)
    assert client.returncode != 0, said  # the runner is gone, and that is said
    done = market.run(*words)
    assert done.returncode == 0, done.stderr
    assert prepared(market) == 1
    assert begins(market) == ["begins at 0", f"begins at {was}"]
    assert market.fake.alive == [box]


def test_an_interruptible_box_is_taken_away_while_it_works(market: Market) -> None:
    client = market.popen(*market.words("--set", "steps=40", "--interruptible", "--down-after"))
    until(lambda: newest(market) >= 3)
    market.fake.preempt(market.fake.alive[0])
    was = newest(market)
    _, said = client.communicate(timeout=240)
    assert client.returncode == 0, said
    assert begins(market) == ["begins at 0", f"begins at {was}"]
    assert newest(market) == 40
    assert len(market.fake.contracts) == 2 and market.fake.alive == []


def test_a_box_that_is_given_back_by_another_is_not_rented_again(market: Market) -> None:
    client = market.popen(*market.words("--set", "steps=500", "--interruptible"))
    until(lambda: newest(market) >= 2)
    down = market.run("cloud", "down", "small", "--force")
    assert down.returncode == 0, down.stderr
    _, said = client.communicate(timeout=240)
    assert client.returncode == 4 and "RDTL-B066" in said and "given back" in said
    assert "goes on on another one" not in said
    assert len(market.fake.contracts) == 1 and market.fake.alive == []
    assert market.events().count("begin") == 1


def test_ctrl_c_leaves_it_running_and_the_guard_ends_it(market: Market) -> None:
    client = market.popen(*market.words("--set", "steps=10", "--down-after"))
    until(lambda: newest(market) >= 1)
    client.send_signal(2)
    _, said = client.communicate(timeout=30)
    assert client.returncode == 130 and "cloud attach" in said
    until(lambda: market.fake.alive == [], 90)  # proven and given back with nobody there
    assert newest(market) == 10
    until(lambda: market.events()[-2:] == ["closed", "ended"])


def test_a_guard_that_was_killed_comes_back(market: Market) -> None:
    assert market.run(*market.words()).returncode == 0
    first = market.guard()
    assert first is not None
    market.kill(first)
    assert market.guard() is None
    market.run("cloud", "status")
    time.sleep(1)
    assert market.guard() not in (None, first)


def test_the_guard_is_there_however_long_the_first_box_took(market: Market) -> None:
    held = threading.Event()
    market.fake.faults = [Fault("POST", r"/api/v0/bundles/", held=held, after=True, status=503)]
    market.boxes.gpu = {1001: "NVIDIA L4"}
    client = market.popen(*market.words())
    until(lambda: any("bundles" in path for _, path, _ in market.fake.requests))
    time.sleep(5)  # a guard that was started before there is anything to watch has ended
    held.set()
    _, said = client.communicate(timeout=120)
    assert client.returncode == 0, said
    assert len(market.fake.contracts) == 2 and len(market.fake.alive) == 1
    assert market.guard() is not None


def test_a_network_that_is_cut_for_a_minute(market: Market) -> None:
    client = market.popen(*market.words("--set", "steps=30"))
    until(lambda: newest(market) >= 2)
    box = market.fake.alive[0]
    with market.boxes.cut(box):
        time.sleep(60)
    _, said = client.communicate(timeout=180)
    assert client.returncode == 0, said
    assert "connection lost" in said
    assert (begins(market), prepared(market)) == (["begins at 0"], 1)
