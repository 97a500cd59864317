"""``hf://``: listing by commit, downloads through redirects, uploads with a card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.core.errors import RdtlError, UsageError
from launcher.dag import load
from launcher.staging import fetch, send, transfer, uri
from launcher.staging.cache import Cache
from launcher.staging.stores import hf
from tests import process_list
from tests.staging import hub as hubs
from tests.staging import servers

BIG = bytes(range(256)) * 40
FILES = {"config.json": b"{}", "weights/model.bin": BIG, "weights/é $(x) `y`.txt": b"odd"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hubs.Hub]:
    with hubs.running() as found:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", found.url)
        monkeypatch.setenv("HF_TOKEN", hubs.TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield found


def bring(cache: Cache, text: str) -> fetch.Staged:
    return fetch.bring(cache, transfer.Order(uri.parse(text)))


def test_a_repository_comes_in_and_its_token_goes_nowhere_else(hub: hubs.Hub, cache: Cache) -> None:
    hub.repositories["datasets/me/data"] = dict(FILES)
    hub.private.add("datasets/me/data")
    with process_list.watched(0.005) as seen:
        staged = bring(cache, "hf://datasets/me/data")
    assert any("rclone" in line and "copy" in line for line in seen)
    assert not [line for line in seen if hubs.TOKEN in line]
    there = {one.path: (staged.path / one.path).read_bytes() for one in staged.asset.manifest.files}
    assert there == FILES
    assert hub.leaks == []
    assert not list(Path(cache.root).rglob("*canary*"))
    texts = [path.read_bytes() for path in Path(cache.root).rglob("*") if path.is_file()]
    assert all(hubs.TOKEN.encode() not in text for text in texts)


def test_listing_knows_checksums_and_keeps_to_one_commit(hub: hubs.Hub) -> None:
    hub.repositories["models/me/net"] = dict(FILES)
    commit = hub.commit("models/me/net")
    listing = hf.store().list(uri.parse("hf://models/me/net@main/weights"))
    kinds = {entry.path: entry.checksums for entry in listing.entries}
    assert kinds["model.bin"] == {"sha256": hashlib.sha256(BIG).hexdigest()}
    assert list(kinds["é $(x) `y`.txt"]) == ["git-sha1"]
    assert f"/resolve/{commit}/" in listing.remote.environment["RCLONE_CONFIG_RDTLWEB_URL"]
    one = hf.store().list(uri.parse("hf://models/me/net/weights/model.bin"))
    assert one.single and [entry.path for entry in one.entries] == ["model.bin"]


def test_a_changed_repository_is_fetched_again(hub: hubs.Hub, cache: Cache) -> None:
    hub.repositories["models/me/net"] = dict(FILES)
    first = bring(cache, "hf://models/me/net")
    hub.repositories["models/me/net"]["config.json"] = b'{"a": 1}'
    second = bring(cache, "hf://models/me/net")
    assert first.moved == 3
    assert second.asset.manifest.digest != first.asset.manifest.digest


@pytest.mark.parametrize("name", ["../../../../mine", "weights/../../../../../mine", "//mine"])
def test_a_name_that_leads_out_of_the_cache_is_refused(
    hub: hubs.Hub, cache: Cache, tmp_path: Path, name: str
) -> None:
    (tmp_path / "mine").write_bytes(b"the user's own")
    hub.repositories["datasets/me/data"] = {**FILES, name: b"theirs"}
    with pytest.raises(RdtlError, match="RDTL-G023"):
        bring(cache, "hf://datasets/me/data")
    assert (tmp_path / "mine").read_bytes() == b"the user's own"
    assert cache.assets() == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("hf://models/me/nothing", "RDTL-G016"),
        ("hf://models/me/data", "RDTL-G016"),
        ("hf://datasets/me/data@v9", "RDTL-G002"),
        ("hf://datasets/me/data/nothing", "RDTL-G002"),
        ("hf://spaces/me/data", "RDTL-G019"),
        ("hf://datasets/data", "RDTL-G019"),
    ],
)
def test_refused(hub: hubs.Hub, text: str, code: str) -> None:
    hub.repositories["datasets/me/data"] = dict(FILES)
    kind = UsageError if code == "RDTL-G019" else RdtlError
    with pytest.raises(kind, match=code):
        hf.store().list(uri.parse(text))


def test_a_recipe_tells_an_empty_repository_from_one_that_may_be_hidden(hub: hubs.Hub) -> None:
    """In one that was made beforehand surely nothing lies; the hub hides private ones (G016)."""
    hub.repositories["models/me/net"] = {}
    nothing = load.load("rdt/finetune").recipe.variables["nothing"]
    said = []
    for name in ("net", "other"):
        with pytest.raises(RdtlError) as refused:
            hf.store().list(uri.parse(f"hf://models/me/{name}/finetune-box/checkpoints"))
        said.append(str(refused.value))
    assert [nothing in words for words in said] == [True, False]
    assert "hf repos create me/other --type model --private" in said[1]


def test_a_policy_goes_out_in_one_commit_with_a_card(hub: hubs.Hub, tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    card = {"contract": {"name": "libero"}, "encoders": {"vision": "trained"}, "weights": "ema",
            "dtype": "float32", "weights_sha256": "ab", "horizon": 16}  # fmt: skip
    files = {"model.safetensors": BIG, "card.json": json.dumps(card).encode(), "config.json": b"{}"}
    servers.write_tree(folder, files)
    sent = send.send(send.Parcel(folder, uri.parse("hf://models/me/policy")))
    assert len(sent.manifest.files) == 3
    there = hub.repositories["models/me/policy"]
    assert {path: there[path] for path in files} == files
    assert "models/me/policy" in hub.private and hub.leaks == []
    text = there["README.md"].decode()
    assert (
        "library_name: rdt-launcher" in text and '"libero"' in text and "16 control steps" in text
    )
    assert "rdtl-manifest.json" in there
    assert hub.commits[0].startswith("3 files")


def test_without_a_token_nothing_can_be_written(
    hub: hubs.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    servers.write_tree(tmp_path / "policy", {"config.json": b"{}"})
    with pytest.raises(RdtlError, match=r"RDTL-G01[46]"):
        send.send(send.Parcel(tmp_path / "policy", uri.parse("hf://models/me/policy")))
    assert hub.repositories == {}
