"""Out: what is said to be in the store is there, and nothing is deleted before."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from launcher.core import manifest
from launcher.core.errors import RdtlError, RefusedError
from launcher.staging import fetch, published, send, transfer, uri
from launcher.staging.cache import Cache
from tests.staging import servers
from tests.staging.conftest import S3, order, tree


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    servers.write_tree(tmp_path / "here", servers.ODD)
    return tmp_path / "here"


def parcel(folder: Path, path: str = "out", **more: object) -> send.Parcel:
    return send.Parcel(folder, uri.parse(f"rclone:t:bkt/{path}"), **more)  # type: ignore[arg-type]


def local(folder: Path, place: Path, **more: object) -> send.Parcel:
    return send.Parcel(folder, uri.parse(f"file://{place}"), **more)  # type: ignore[arg-type]


def test_what_goes_out_comes_in_again_and_goes_once(s3: S3, cache: Cache, folder: Path) -> None:
    before = manifest.make(folder)
    sent = send.send(parcel(folder, delete=True))
    assert (sent.manifest, sent.moved) == (before, len(servers.ODD))
    assert list(folder.iterdir()) == [], "what is proven to be there is deleted here"
    assert tree(s3.root / "bkt/out") == {**servers.ODD, published.NAME: before.text.encode()}
    staged = fetch.bring(cache, order("out"))
    assert (tree(staged.path), staged.asset.manifest) == (servers.ODD, before)
    assert send.send(parcel(staged.path)).moved == 0


def test_what_a_link_leads_to_is_sent_and_never_deleted(
    s3: S3, folder: Path, tmp_path: Path
) -> None:
    """A run's assets are links into the cache that all runs share."""
    servers.write_tree(tmp_path / "cache", {"asset/a": b"a", "asset/b/c": b"c", "one": b"1"})
    (folder / "assets").mkdir()
    (folder / "assets" / "data").symlink_to(tmp_path / "cache" / "asset")
    (folder / "assets" / "one").symlink_to(tmp_path / "cache" / "one")
    (folder / "again").symlink_to("deep")  # the same files, by two names
    before = manifest.make(folder)
    assert send.send(parcel(folder, delete=True)).manifest == before
    assert tree(tmp_path / "cache") == {"asset/a": b"a", "asset/b/c": b"c", "one": b"1"}
    assert tree(s3.root / "bkt/out/assets") == {"data/a": b"a", "data/b/c": b"c", "one": b"1"}
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_a_copy_that_was_altered_in_the_store_is_sent_again(s3: S3, folder: Path) -> None:
    send.send(parcel(folder))
    there = s3.root / "bkt/out/plain.txt"
    facts = there.stat()
    there.write_bytes(b"pLain\n")
    os.utime(there, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    s3.forget()
    assert send.send(parcel(folder)).moved == 1
    assert there.read_bytes() == b"plain\n"


@pytest.mark.slow
def test_a_store_without_checksums_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    root = tmp_path / "dav"
    root.mkdir()
    with servers.serve("webdav", root, tmp_path / "server") as server:
        for name, value in {"TYPE": "webdav", "VENDOR": "other", "URL": server.url}.items():
            monkeypatch.setenv(f"RCLONE_CONFIG_D_{name}", value)
        place = uri.parse("rclone:D:out")
        send.send(send.Parcel(folder, place))
        there = root / "out/semi;touch ran-semi;.txt"
        facts = there.stat()
        there.write_bytes(b"SEMI")  # as long, as old
        os.utime(there, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        server.kill()
        server.start()
        with pytest.raises(RdtlError, match="RDTL-G003"):  # the manifest holds it to its digest
            fetch.bring(Cache(tmp_path / "cache"), transfer.Order(place))
        assert send.send(send.Parcel(folder, place)).manifest == manifest.make(folder)
        assert there.read_bytes() == b"semi"
        assert (
            tree(fetch.bring(Cache(tmp_path / "cache"), transfer.Order(place)).path) == servers.ODD
        )


@pytest.mark.slow
def test_a_server_that_dies_in_the_middle_of_an_upload(s3: S3, tmp_path: Path) -> None:
    files = {f"{n:02}": os.urandom(200_000) for n in range(30)}
    servers.write_tree(tmp_path / "here", files)
    said: list[str] = []

    def kill() -> None:
        while not list(s3.root.rglob("1*")):
            pass
        s3.server.kill()
        threading.Timer(1, s3.server.start).start()

    killer = threading.Thread(target=kill)
    killer.start()
    send.send(parcel(tmp_path / "here", transfers=2, delete=True, say=said.append))
    killer.join()
    found = tree(s3.root / "bkt/out")
    assert {name: found[name] for name in files} == files
    assert list((tmp_path / "here").iterdir()) == []


def test_a_dead_store_deletes_nothing(
    s3: S3, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.server.kill()
    monkeypatch.setenv("RCLONE_CONFIG_T_ENDPOINT", s3.server.url)
    with pytest.raises(RdtlError, match="RDTL-G011"):
        send.send(parcel(folder, delete=True))
    assert tree(folder) == servers.ODD


def test_a_file_that_grows_meanwhile_is_refused_and_kept(s3: S3, folder: Path) -> None:
    parcel_ = parcel(folder, delete=True, show=lambda progress: log())

    def log() -> None:
        with (folder / "plain.txt").open("ab") as handle:
            handle.write(b"more\n")

    with pytest.raises(RdtlError, match=r"RDTL-G0(21|03|24)"):
        send.send(parcel_)
    assert (folder / "plain.txt").read_bytes().startswith(b"plain\nmore\n")
    assert set(tree(folder)) == set(servers.ODD)
    assert not (s3.root / "bkt/out" / published.NAME).exists()


def test_a_folder_that_gets_another_file_meanwhile_is_refused(s3: S3, folder: Path) -> None:
    """Everything that was listed is there and right; what is in the store is no state of it."""
    parcel_ = parcel(folder, show=lambda progress: (folder / "late").write_bytes(b"late"))
    with pytest.raises(RdtlError, match="RDTL-G021"):
        send.send(parcel_)
    assert not (s3.root / "bkt/out" / published.NAME).exists()


def test_something_else_is_not_mixed_with_what_lies_there(
    s3: S3, cache: Cache, folder: Path, tmp_path: Path
) -> None:
    send.send(parcel(folder))
    servers.write_tree(tmp_path / "other", {"plain.txt": b"other\n"})
    with pytest.raises(RdtlError, match="RDTL-G025"):
        send.send(parcel(tmp_path / "other"))
    send.send(parcel(tmp_path / "other", replace=True))
    assert tree(fetch.bring(cache, order("out")).path) == {"plain.txt": b"other\n"}


@pytest.mark.slow
def test_two_writers_never_leave_a_mixture_that_is_taken(
    s3: S3, cache: Cache, tmp_path: Path
) -> None:
    states = {}
    for word in (b"left", b"right"):
        states[word] = {f"{n:02}": word * 1000 for n in range(10)}
        servers.write_tree(tmp_path / word.decode(), states[word])
    context = multiprocessing.get_context("fork")

    def write(name: str) -> None:
        try:
            send.send(parcel(tmp_path / name, replace=True, transfers=2))
        except RdtlError:
            os._exit(1)
        os._exit(0)

    processes = [context.Process(target=write, args=(name,)) for name in ("left", "right")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    try:
        found = tree(fetch.bring(cache, order("out")).path)
    except RdtlError as error:  # a mixture is told, by whoever wrote and by whoever reads
        assert error.problem.code in ("RDTL-G002", "RDTL-G003")
        return
    assert found in states.values()


@pytest.mark.parametrize("path", ["../outside", "/etc/rdtl-outside", "a/../../outside"])
def test_a_manifest_in_the_store_cannot_reach_out(s3: S3, cache: Cache, path: str) -> None:
    entry = {"path": path, "size": 1, "sha256": "0" * 64}
    text = json.dumps({"format": manifest.FORMAT, "files": [entry]})
    s3.put(**{"x/a": b"a", f"x/{published.NAME}": text.encode()})
    with pytest.raises(RdtlError, match="RDTL-G020"):
        fetch.bring(cache, order("x"))
    assert cache.assets() == []
    assert not list(cache.root.parent.rglob("outside"))


@pytest.mark.slow
def test_an_upload_that_has_not_ended_is_not_taken_for_whole(
    s3: S3, cache: Cache, folder: Path
) -> None:
    send.send(parcel(folder))
    (s3.root / "bkt/out/empty").unlink()
    s3.forget()
    with pytest.raises(RdtlError, match="RDTL-G002") as caught:
        fetch.bring(cache, order("out"))
    assert "empty" in caught.value.problem.where


@pytest.mark.parametrize("place", ["here", "link", "bound/here", "here/deep/out"])
def test_a_folder_is_not_sent_into_itself(folder: Path, tmp_path: Path, place: str) -> None:
    """By its own name, by a link to it or to what holds it, or into what it is made of."""
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "bound").symlink_to(tmp_path)
    for delete in (False, True):
        with pytest.raises(RefusedError, match="RDTL-G046"):
            send.send(local(folder, tmp_path / place, delete=delete))
    assert tree(folder) == servers.ODD


def test_a_place_whose_links_lead_back_here_is_no_copy(folder: Path, tmp_path: Path) -> None:
    """One of a file, one of a folder; and a place above whose own names are ours."""
    servers.write_tree(folder, {"here/plain.txt": b"plain\n"})
    (tmp_path / "one").mkdir()
    (tmp_path / "one/plain.txt").symlink_to(folder / "plain.txt")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/deep").symlink_to(folder / "deep")
    before = tree(folder)
    for place in ("one", "other", "."):
        with pytest.raises(RefusedError, match="RDTL-G046"):
            send.send(local(folder, tmp_path / place, delete=True))
    assert tree(folder) == before


def test_a_place_beside_and_above_is_another_one(tmp_path: Path) -> None:
    folder, top = tmp_path / "top/here", tmp_path / "top"
    servers.write_tree(folder, servers.ODD)
    (tmp_path / "link").symlink_to(top)
    before = manifest.make(folder)
    assert send.send(local(folder, tmp_path / "link" / "there")).manifest == before
    assert send.send(local(folder, top, delete=True)).manifest == before
    assert tree(top / "there") == {**servers.ODD, published.NAME: before.text.encode()}
    assert {name: (top / name).read_bytes() for name in servers.ODD} == servers.ODD
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("sent_before", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_machine_that_is_this_one_is_no_other_place(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent_before: bool
) -> None:
    """By a real sshd; that its folder is ours shows when its manifest appears here."""
    with servers.sshd(tmp_path / "sshd") as (server, words):
        monkeypatch.setenv("RDTL_SSH", words)
        place = uri.parse(f"ssh://127.0.0.1:{server.port}{folder}")
        if sent_before:
            send.send(send.Parcel(folder, place))
        with pytest.raises(RefusedError, match="RDTL-G046"):
            send.send(send.Parcel(folder, place, delete=True))
    assert {name: (folder / name).read_bytes() for name in servers.ODD} == servers.ODD


def test_single_files_go_without_a_manifest(s3: S3, folder: Path) -> None:
    send.send(parcel(folder, paths=["plain.txt"], delete=True))
    assert tree(s3.root / "bkt/out") == {"plain.txt": b"plain\n"}
    assert set(tree(folder)) == set(servers.ODD) - {"plain.txt"}


def test_a_loop_of_links_is_refused_and_nothing_is_sent(s3: S3, folder: Path) -> None:
    (folder / "deep" / "up").symlink_to("..")
    with pytest.raises(RdtlError, match="RDTL-G023"):
        send.send(parcel(folder))
    assert tree(s3.root / "bkt") == {}
