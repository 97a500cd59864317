"""The whole way with the real command: rented, recipe run, watched, uploaded, given back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from launcher import sites
from launcher.ssh import Connection
from tests import process_list
from tests.providers import market as markets
from tests.providers.boxes import needs_boxes
from tests.providers.fake_vast import KEY
from tests.providers.market import SECRET, Market

pytestmark = needs_boxes


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    with markets.market(tmp_path) as made:
        yield made


BARE = ["cloud", "up", "--gpus", "2", "--max-price", "3", "--max-hours", "5", "--disk-gb", "0.1"]
"""A machine without a recipe."""


def test_from_rental_to_nothing_left(market: Market) -> None:
    dry = market.run(*market.words("--dry-run"))
    assert dry.returncode == 0, dry.stderr
    assert "PUT /api/v0/asks/1/" in dry.stdout and "10.50 $" in dry.stdout
    bid = market.run(*market.words("--dry-run", "--interruptible"))
    assert "at 1.370 $/h" in bid.stdout, bid.stdout  # 1.2 × the lowest bid of 1.1, and the disk
    assert market.fake.contracts == {} and market.ledger() == []

    done = market.run(*market.words("--name", "first"))
    assert done.returncode == 0, done.stderr
    assert (market.store / "result").read_text() == "3\n"
    assert len(market.fake.alive) == 1
    seen = json.loads(market.run("cloud", "status", "--json").stdout)
    assert [box["proven"] for box in seen["rentals"][0]["boxes"]] == [True]
    again = market.run(*market.words("--name", "first"))
    assert again.returncode == 0, again.stderr
    assert (market.store / "begins").read_text() == "begins at 0\n"  # nothing ran twice
    down = market.run("cloud", "down")
    assert down.returncode == 0, down.stderr
    assert market.fake.alive == []
    assert len(market.fake.contracts) == 1


def test_no_secret_is_anywhere(market: Market) -> None:
    with process_list.watched() as listed:
        done = market.run(*market.words())
    assert done.returncode == 0, done.stderr
    for part in ("cloud up", "cloud guard", "ssh -F none", "runner.pyz start", "runner.pyz follow"):
        assert any(part in line for line in listed), part
    everything = [done.stdout, done.stderr, *listed, *(p + b for _, p, b in market.fake.requests)]
    for path in [*market.home.rglob("*"), *market.boxes.root.rglob("*")]:
        if path.is_file():
            everything.append(path.read_text(errors="replace"))
    assert any("step=3" in text for text in everything)  # the box's own files are among them
    for secret in (KEY, SECRET, KEY[:12], SECRET[:12]):
        assert not any(secret in text for text in everything)
    gone = market.run(*market.words("--down-after"))
    assert gone.returncode == 0, gone.stderr
    assert market.fake.alive == []


@pytest.mark.slow
def test_what_is_not_proven_is_not_given_back(market: Market) -> None:
    market.edit("proven in", "perhaps in")
    done = market.run(*market.words())
    assert done.returncode == 0, done.stderr
    assert "not proven" in done.stderr
    refused = market.run("cloud", "down")
    assert refused.returncode == 3
    assert "RDTL-B006" in refused.stderr and "upload" in refused.stderr
    assert len(market.fake.alive) == 1
    forced = market.run("cloud", "down", "--force")
    assert forced.returncode == 0, forced.stderr
    assert "although not proven by its last run: upload" in forced.stderr
    assert market.fake.alive == []


def test_mistakes_are_refused_before_anything_costs(market: Market) -> None:
    missing = market.run(*market.words(), env={"STORE_TOKEN": ""})
    assert missing.returncode == 2 and "STORE_TOKEN" in missing.stderr
    free = [word for word in market.words() if word not in ("--max-hours", "5")]
    assert "RDTL-B064" in market.run(*free).stderr
    assert "RDTL-B061" in market.run(*market.words(), env={"VAST_API_KEY": ""}).stderr
    wrong = market.run(*market.words(), env={"VAST_API_KEY": "another"})
    assert wrong.returncode == 4 and "RDTL-B061" in wrong.stderr
    for address in (f"{market.fake.url}/nowhere", "http://127.0.0.1:9/x", "htps://x", "file:///"):
        unasked = market.run(*market.words("--download-url", address))
        assert unasked.returncode == 2 and "RDTL-B070" in unasked.stderr, unasked.stderr
    market.edit("  steps: {", '  upload: {about: Where checkpoints go, default: ""}\n  steps: {')
    taken = market.run(*market.words("--interruptible"))
    assert taken.returncode == 2 and "upload is empty" in taken.stderr
    assert market.fake.contracts == {}


def test_a_bare_machine_and_boxes_of_others(market: Market) -> None:
    market.fake.answer("PUT", "/api/v0/asks/3/", {}, {"image": "x", "label": "somebody's"})
    market.fake.answer("PUT", "/api/v0/asks/2/", {}, {"image": "x", "label": "rdtl-" + "0" * 32})
    done = market.run(*BARE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ssh ")
    status = market.run("cloud", "status")
    assert status.returncode == 0 and "somebody's" in status.stdout and "B003" in status.stdout
    assert market.run("cloud", "down").returncode == 3
    assert market.run("cloud", "down", "--force").returncode == 0
    assert market.fake.alive == [9000, 9001]


@pytest.mark.slow
def test_several_boxes_are_one_site(market: Market) -> None:
    for name in ("left", "right"):
        assert market.run(*BARE, "--name", name).returncode == 0
    made = market.run("cloud", "hosts", "left", "right", "--json")
    assert made.returncode == 0, made.stderr
    written = json.loads(made.stdout)
    text = (market.home / written["site"]).read_text()
    site = sites.Site.model_validate(yaml.safe_load(text))
    assert [(host.host, host.slots) for host in site.hosts] == [("left", 2), ("right", 2)]
    boot = ["cat", "/proc/sys/kernel/random/boot_id"]
    seen = {Connection(h.host, tuple(site.ssh_options), alone=True).run(boot) for h in site.hosts}
    assert len(seen) == 2
    sites_of_here = market.home / "configs" / "sites"
    (sites_of_here / "far.yaml").write_text("kind: slurm\nssh: nowhere.invalid\n")
    (sites_of_here / "torn.yaml").write_text("kind: [\n")
    for name in ("far", "torn"):  # somebody's own: neither read as a place to go, nor replaced
        kept = (sites_of_here / f"{name}.yaml").read_text()
        refused = market.run("cloud", "hosts", "left", "--site", name)
        assert refused.returncode == 2 and "RDTL-S058" in refused.stderr, refused.stderr
        assert (sites_of_here / f"{name}.yaml").read_text() == kept
    for names in (("left", "right"), ("right",)):  # a new one, and it again
        again = market.run("cloud", "hosts", *names, "--site", "mine")
        assert again.returncode == 0, again.stderr
    mine = yaml.safe_load((sites_of_here / "mine.yaml").read_text())
    assert [host["host"] for host in mine["hosts"]] == ["right"]
