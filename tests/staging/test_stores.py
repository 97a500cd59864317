"""Every store through its real server: what is listed, comes in, goes out, is refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from launcher.core.errors import RdtlError
from launcher.staging import fetch, listing, send, transfer, uri
from launcher.staging.cache import Cache
from launcher.staging.engine import Engine
from launcher.staging.stores import store_for
from tests.staging import faults, servers

SECRET = "CANARY-s3cret-of-the-bucket"


@dataclass
class Place:
    """A folder of a real server."""

    uri: str
    server: servers.Server | None
    writable: bool = True
    files: dict[str, bytes] = field(default_factory=lambda: dict(servers.ODD))


def s3(folder: Path, tree: Path, stack: ExitStack, patch: pytest.MonkeyPatch) -> Place:
    words = ("--auth-key", f"AKACCESS,{SECRET}")
    server = stack.enter_context(servers.serve("s3", tree, folder, *words))
    patch.setenv("AWS_ENDPOINT_URL", server.url)
    patch.setenv("AWS_ACCESS_KEY_ID", "AKACCESS")
    patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    return Place("s3://bkt/odd", server)


def gcs(folder: Path, tree: Path, stack: ExitStack, patch: pytest.MonkeyPatch) -> Place:
    pytest.importorskip("gcp_storage_emulator")
    server = stack.enter_context(servers.gcs(folder / "gcs", folder))
    patch.setenv("STORAGE_EMULATOR_HOST", server.url)
    place, source = uri.parse("gs://bkt/odd"), tree / "bkt" / "odd"
    # The emulator gives out addresses in which it has not escaped % and ;.
    files = {name: data for name, data in servers.ODD.items() if not set("%;") & set(name)}
    store_for("gs").upload(place, source, list(files), Engine(transfers=1).move)
    return Place("gs://bkt/odd", server, files=files)


def web(folder: Path, tree: Path, stack: ExitStack, patch: pytest.MonkeyPatch) -> Place:
    server = stack.enter_context(servers.serve("http", tree, folder))
    return Place(f"{server.url}/bkt/odd", server, writable=False)


def ssh(folder: Path, tree: Path, stack: ExitStack, patch: pytest.MonkeyPatch) -> Place:
    server, words = stack.enter_context(servers.sshd(folder))
    patch.setenv("RDTL_SSH", words)
    return Place(f"ssh://127.0.0.1:{server.port}{tree}/bkt/odd", server)


def disk(folder: Path, tree: Path, stack: ExitStack, patch: pytest.MonkeyPatch) -> Place:
    return Place(f"file://{tree}/bkt/odd", None)


def remote(folder: Path, tree: Path, stack: ExitStack, patch: pytest.MonkeyPatch) -> Place:
    server = stack.enter_context(servers.serve("webdav", tree, folder))
    patch.setenv("RCLONE_CONFIG_DAV_TYPE", "webdav")
    patch.setenv("RCLONE_CONFIG_DAV_VENDOR", "rclone")
    patch.setenv("RCLONE_CONFIG_DAV_URL", server.url)
    return Place("rclone:dav:bkt/odd", server)


def sftp(folder: Path, tree: Path, stack: ExitStack, patch: pytest.MonkeyPatch) -> Place:
    """An absolute path: without its slash it would be below the home directory."""
    server, _ = stack.enter_context(servers.sshd(folder))
    settings = {"TYPE": "sftp", "HOST": "127.0.0.1", "PORT": str(server.port)}
    settings |= {"KEY_FILE": f"{folder}/me", "KNOWN_HOSTS_FILE": f"{folder}/known"}
    for name, value in settings.items():
        patch.setenv(f"RCLONE_CONFIG_SF_{name}", value)
    return Place(f"rclone:sf:{tree}/bkt/odd", server)


Start = Callable[[Path, Path, ExitStack, pytest.MonkeyPatch], Place]


SLOW = [pytest.param(start, marks=pytest.mark.slow) for start in (ssh, sftp)]  # a login each time
STARTS = (s3, gcs, web, disk, remote, *SLOW)


@pytest.fixture(params=STARTS, ids=lambda start: start.__name__)
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    for name in [name for name in os.environ if name.startswith(("RCLONE_", "AWS_"))]:
        monkeypatch.delenv(name)
    tree = tmp_path / "tree"
    servers.write_tree(tree / "bkt" / "odd", servers.ODD)
    monkeypatch.chdir(tree)  # what a name executes would leave its trace here or over there
    with ExitStack() as stack:
        yield request.param(tmp_path / "server", tree, stack, monkeypatch)


def _asks_for_names(place: Place) -> None:
    """Only what is wanted is looked at, so a round of uploads costs what it sends."""
    where = uri.parse(place.uri)
    store, names = store_for(where.scheme), sorted(place.files)[::2]
    listed = store.list(where, [*names, "no-such-file"]).entries
    known = {one.path: one for one in store.list(where).entries}
    wanted = [one for one in listed if one.path in names]
    assert [(one.path, one.size) for one in wanted] == [(n, known[n].size) for n in names]
    assert where.scheme == "gs" or (listed == tuple(wanted) and len(listed) < len(known))
    if where.scheme in ("ssh", "file"):
        assert [one.checksums for one in listed] == [known[n].checksums for n in names]


def test_a_store(
    place: Place, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In with odd names, one file of it, out again elsewhere; nothing there; nobody there."""
    store = store_for(uri.parse(place.uri).scheme)
    staged = fetch.bring(cache, transfer.Order(uri.parse(place.uri)))
    found = {one.path: (staged.path / one.path).read_bytes() for one in staged.asset.manifest.files}
    assert found == place.files
    one = fetch.bring(cache, transfer.Order(uri.parse(f"{place.uri}/plain.txt")))
    assert one.path.read_bytes() == servers.ODD["plain.txt"]
    with pytest.raises(RdtlError, match="RDTL-G002"):
        store.list(uri.parse(f"{place.uri}/no/thing"))
    _asks_for_names(place)
    monkeypatch.setattr(listing, "FEW", 0)
    _asks_for_names(place)
    target = uri.parse(f"{place.uri.rpartition('/')[0]}/out")
    if place.writable:
        assert send.send(send.Parcel(staged.path, target)).moved == len(place.files)
        assert fetch.bring(cache, transfer.Order(target)).asset.manifest == staged.asset.manifest
    else:
        with pytest.raises(RdtlError, match="RDTL-G022"):
            send.send(send.Parcel(staged.path, target))
    assert not list(tmp_path.rglob("ran-*")) and not list(Path.home().glob("ran-*"))
    texts = [p.read_bytes() for p in cache.root.rglob("*") if p.is_file()]
    assert all(SECRET.encode() not in text for text in texts)
    monkeypatch.setattr("gcsfs.retry.min", lambda *seconds: 0.05, raising=False)  # its waits
    if place.server:
        place.server.kill()
        with pytest.raises(RdtlError, match="RDTL-G011") as failed:
            store.list(uri.parse(place.uri))
        assert SECRET not in str(failed.value)


def test_an_object_whose_name_leads_out_of_the_cache_is_refused(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to a bucket gives any name; what the user has here is not theirs."""
    pytest.importorskip("gcp_storage_emulator")
    (tmp_path / "mine").write_bytes(b"the user's own")
    servers.write_tree(tmp_path / "here", {"good": b"good", "up/up/up/up/mine": b"theirs"})
    with ExitStack() as stack:
        server = stack.enter_context(servers.gcs(tmp_path / "gcs", tmp_path / "server"))
        proxy = stack.enter_context(faults.before(server.port))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        move = Engine(transfers=1).move
        place = uri.parse("gs://bkt/x")
        store_for("gs").upload(place, tmp_path / "here", ["good", "up/up/up/up/mine"], move)
        # The emulator keeps objects as files and refuses such a name; Google takes it.
        proxy.fault = lambda path, number, body: faults.Answer(body=body.replace(b"/up", b"/.."))
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        with pytest.raises(RdtlError, match="RDTL-G023"):
            fetch.bring(cache, transfer.Order(place))
    assert (tmp_path / "mine").read_bytes() == b"the user's own"
    assert cache.assets() == []


@pytest.mark.parametrize(
    ("place", "package"),
    [("gs://bkt/x", "gcsfs.core"), ("hf://datasets/me/data", "huggingface_hub")],
)
def test_a_package_that_is_missing_is_not_a_store_that_is_silent(
    place: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # importing it raises as without it
    with pytest.raises(RdtlError, match="RDTL-G012") as caught:
        transfer.patiently_listed(transfer.Order(uri.parse(place)))
    assert package in caught.value.problem.where
    assert "rdt-launcher[staging]" in caught.value.problem.fix
