"""vast's own SDK and program against the same stand-in: they hold it, and our client, to the form.

They live in an environment of their own: their pins clash with everybody's.
"""

from __future__ import annotations

import json
import os
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.providers.http import Api
from launcher.providers.provider import Order
from launcher.providers.vast import Vast, search_body
from launcher.providers.wanted import Wanted
from tests.providers.fake_vast import KEY, FakeVast, offer, serve

pytestmark = pytest.mark.slow
VERSION = "1.9.1"
WANTED = Wanted(
    gpus=2, vram_gb=96, disk_gb=40, memory_gb=64, cpus=8, min_driver="570.86.15", cuda="12.8",
    download_mbps=500,
)  # fmt: skip
ORDER = Order("rdtl-abc", "some/image:1", 40.0)


@pytest.fixture(scope="module")
def sdk() -> Path:
    """The folder of programs of an environment with vastai."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "rdtl" / "tests" / f"vastai-{VERSION}"
    if not (folder / "bin" / "vastai").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = [folder / "bin" / "pip", "install", "-q", f"vastai=={VERSION}"]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode:
            said = f"vastai cannot be installed: {done.stderr.strip()[-200:]}"
            (pytest.fail if _index_answers(folder) else pytest.skip)(said)
    return folder / "bin"


def _index_answers(folder: Path) -> bool:
    """Whether packages can be had at all: then one that cannot is a fault, not a lack."""
    words = ["download", "-q", "--no-deps", "--no-cache-dir", "-d", folder / "asked", "pip"]
    return not subprocess.run([folder / "bin" / "pip", *words], check=False).returncode


@pytest.fixture
def fake() -> Iterator[FakeVast]:
    market = FakeVast()
    market.offers = {1: offer(1), 2: offer(2, dph_total=2.5), 3: offer(3, num_gpus=1)}
    with serve(market):
        yield market


@pytest.fixture
def vast(fake: FakeVast) -> Vast:
    return Vast(Api(fake.url, KEY))


def run(fake: FakeVast, *words: str | Path) -> str:
    env = {**os.environ, "VAST_URL": fake.url, "VAST_API_KEY": KEY, "NO_COLOR": "1"}
    done = subprocess.run(
        words, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(fake: FakeVast, sdk: Path, code: str) -> Any:
    """What ``code`` makes of ``v``, the client of the SDK, as its last expression ``answer``."""
    program = (
        "import json\nfrom vastai import VastAI\n"
        f"v = VastAI(server_url={fake.url!r}, api_key={KEY!r})\n{code}\nprint(json.dumps(answer))"
    )
    return json.loads(run(fake, sdk / "python", "-c", program).splitlines()[-1])


def last(fake: FakeVast, method: str, path: str) -> Any:
    """Body of the newest request."""
    found = [body for verb, at, body in fake.requests if verb == method and path in at]
    return json.loads(found[-1])


def test_a_search_is_what_the_sdk_sends(fake: FakeVast, sdk: Path, vast: Vast) -> None:
    assert [one.id for one in vast.search(WANTED, 3.0, interruptible=False)] == [1, 2]
    ours = last(fake, "POST", "/bundles/")
    fields = {name: value for name, value in ours.items() if isinstance(value, dict)}
    code = (
        f"answer = v.search_offers(query={fields!r}, order=[['dph_total', 'asc']], limit=1000, "
        f"storage={WANTED.rented_disk_gb})"
    )
    assert [one["id"] for one in python(fake, sdk, code)] == [1, 2]
    assert last(fake, "POST", "/bundles/") == ours
    known = "from vastai.api.query import offers_fields\nanswer = sorted(offers_fields)"
    names = set(python(fake, sdk, known))
    assert {name for name in fields if name not in ("dph_total", "disk_space")} <= names
    assert search_body(WANTED, 3.0, interruptible=True)["type"] == "bid"


def test_a_request_to_rent_is_what_the_sdk_sends(fake: FakeVast, sdk: Path, vast: Vast) -> None:
    vast.create(1, ORDER)
    ours = last(fake, "PUT", "/asks/1/")
    code = (
        "answer = v.create_instance(id=2, image='some/image:1', disk=40.0, label='rdtl-abc', "
        "ssh=True, direct=True, cancel_unavail=True)"
    )
    assert python(fake, sdk, code)["new_contract"] == 9001
    theirs = last(fake, "PUT", "/asks/2/")
    assert ours.items() <= theirs.items()
    assert not any(value for name, value in theirs.items() if name not in ours)


def test_without_a_disk_named_the_sdk_rents_the_smallest(
    fake: FakeVast, sdk: Path, vast: Vast
) -> None:
    """Too small for any image of ours; we always name it, and no entry point of the image."""
    code = "answer = v.create_instance(id=2, image='some/image:1', ssh=True)"
    assert python(fake, sdk, code)["new_contract"]
    assert float(last(fake, "PUT", "/asks/2/")["disk"]) <= 10
    vast.create(1, ORDER)
    ours = last(fake, "PUT", "/asks/1/")
    assert ours["disk"] == ORDER.disk_gb == 40
    assert not {"onstart", "args", "entrypoint"} & ours.keys()


def test_what_the_sdk_is_given_as_environment_stands_in_clear(
    fake: FakeVast, sdk: Path, vast: Vast
) -> None:
    """Where the provider keeps it and shows it; ours has no environment and no key in it."""
    given = "env='-e WANDB_API_KEY=canary-of-a-key', onstart_cmd='export HF_TOKEN=canary-of-hf'"
    code = f"answer = v.create_instance(id=2, image='some/image:1', disk=40.0, ssh=True, {given})"
    assert python(fake, sdk, code)["new_contract"]
    theirs = json.dumps(last(fake, "PUT", "/asks/2/"))
    assert "canary-of-a-key" in theirs and "canary-of-hf" in theirs
    vast.create(1, ORDER)
    ours = last(fake, "PUT", "/asks/1/")
    assert ours["env"] == {} and "onstart" not in ours and KEY not in json.dumps(ours)


def test_each_sees_and_ends_what_the_other_rented(fake: FakeVast, sdk: Path, vast: Vast) -> None:
    ours = vast.create(1, ORDER)
    run(fake, sdk / "vastai", "create", "instance", "2", "--image", "x", "--disk", "20", "--ssh",
        "--direct", "--label", "by hand")  # fmt: skip
    seen = python(fake, sdk, "answer = [[i['id'], i['label']] for i in v.show_instances()]")
    assert seen == [[box.id, box.label] for box in vast.boxes()]
    assert [label for _, label in seen] == ["rdtl-abc", "by hand"]
    url = run(fake, sdk / "vastai", "ssh-url", str(ours)).strip()
    host, port = vast.boxes()[0].addresses[0]
    assert url == f"ssh://root@{host}:{port}"
    for end in (lambda: vast.stop(ours), lambda: vast.start(ours),
                lambda: vast.attach_key(ours, "ssh-ed25519 AAAA")):  # fmt: skip
        end()
    mine = [entry for entry in fake.requests if f"/instances/{ours}/" in entry[1]][-3:]
    run(fake, sdk / "vastai", "stop", "instance", str(ours))
    run(fake, sdk / "vastai", "start", "instance", str(ours))
    run(fake, sdk / "vastai", "attach", "ssh", str(ours), "ssh-ed25519 AAAA")
    assert [entry for entry in fake.requests if f"/instances/{ours}/" in entry[1]][-3:] == mine
    run(fake, sdk / "vastai", "destroy", "instance", str(ours), "-y")
    theirs = [entry for entry in fake.requests if entry[0] == "DELETE"]
    vast.destroy(9001)
    ours_too = [entry for entry in fake.requests if entry[0] == "DELETE"]
    assert ours_too[-1] == ("DELETE", "/api/v0/instances/9001/", theirs[-1][2])
    assert vast.boxes() == []


def test_more_boxes_than_a_page(fake: FakeVast, sdk: Path, vast: Vast) -> None:
    fake.offers = {n: offer(n) for n in range(60)}
    made = [vast.create(n, ORDER) for n in range(60)]
    assert [box.id for box in vast.boxes()] == made
    assert python(fake, sdk, "answer = [i['id'] for i in v.show_instances()]") == made
