"""The cache: whole or absent, verified on demand, and never cleaned from under a run."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from launcher.core import files, manifest
from launcher.core.errors import RdtlError
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.sites import Site
from launcher.staging import checks, keep, leaving, uri
from launcher.staging.cache import Asset, Cache, Source
from tests.cli.run_rdtl import rdtl
from tests.staging import servers

URI = uri.parse("gs://bucket/x")


def publish(cache: Cache, contents: bytes = b"data") -> Asset:
    """An asset as a transfer leaves it."""
    work = cache.work(URI, shared=True)
    (work / "files" / "sub").mkdir()
    (work / "files" / "sub" / "file").write_bytes(contents)
    asset = cache.publish(work, manifest.make(work / "files"))
    cache.remember(URI, Source(str(URI), "l", asset.manifest.digest, False, os.urandom(4).hex()))
    return asset


def a_run(folder: Path, *, done: bool = False) -> Path:
    """A run with one stage, finished or not."""
    run = RunDir(folder / "runs" / "r")
    plan = Plan("r", "local", (Stage("train", ("true",)),), {})
    files.write_json(run.plan, plan.to_dict())
    run.ledger.publish("claim.train.a1", indices=[0])
    if done:
        run.ledger.publish("finished.train.i0.n0.a1.r0", exit_code=0)
    return run.root


def age(asset: Asset, days: float) -> None:
    then = time.time() - days * keep.DAY
    os.utime(asset.root / "used", (then, then))


def test_only_what_is_old_and_unwanted_goes(cache: Cache, tmp_path: Path) -> None:
    asset = publish(cache)
    digest = asset.manifest.digest
    said: list[str] = []
    assert keep.clean(cache, 30, said.append, remove=True) == [], "used just now"
    age(asset, 31)
    run = a_run(tmp_path)
    assert cache.use(digest, run)
    age(asset, 31)
    assert keep.clean(cache, 30, said.append, remove=True) == []
    assert str(run) in said[-1]
    RunDir(run).ledger.publish("finished.train.i0.n0.a1.r0", exit_code=0)
    assert [k.digest for k in keep.clean(cache, 30, said.append, remove=False)] == [digest]
    assert cache.asset(digest), "a dry run removes nothing"
    assert [k.digest for k in keep.clean(cache, 30, said.append, remove=True)] == [digest]
    assert (cache.asset(digest), list((cache.root / "assets").iterdir())) == (None, [])


def test_a_run_counts_until_it_is_done_or_gone(cache: Cache, tmp_path: Path) -> None:
    assert keep.is_wanted(a_run(tmp_path))
    assert not keep.is_wanted(tmp_path / "runs" / "removed")
    assert keep.is_wanted(tmp_path / "elsewhere" / "r"), "a disk that is not seen here"
    (tmp_path / "runs" / "r" / "plan.json").write_text("{")
    assert keep.is_wanted(tmp_path / "runs" / "r"), "nobody knows"
    assert not keep.is_wanted(a_run(tmp_path / "other", done=True))


def test_a_run_whose_last_stage_is_overtaken_counts(tmp_path: Path) -> None:
    """Evaluation goes on: the report is made again, though it has ended well before."""
    run = RunDir(a_run(tmp_path, done=True))
    stages = (Stage("train", ("true",)), Stage("report", ("true",), needs=("train",),
                                               needs_ended=True))  # fmt: skip
    files.write_json(run.plan, Plan("r", "local", stages, {}).to_dict())
    for name in ("started", "finished"):
        facts = {"exit_code": 0} if name == "finished" else {}
        run.ledger.publish(f"{name}.report.i0{'.n0' if facts else ''}.a1.r0", **facts)
    assert not keep.is_wanted(run.root)
    run.ledger.publish("claim.train.a2", indices=[0])
    assert keep.is_wanted(run.root)


@pytest.mark.slow
def test_cleaning_and_asking_at_the_same_moment(cache: Cache, tmp_path: Path) -> None:
    """Whoever got an answer can read on; whoever did not knows it."""
    context = multiprocessing.get_context("fork")
    run = a_run(tmp_path)
    outcomes = set()
    for number in range(40):
        digest = publish(cache, str(number).encode()).manifest.digest
        shutil.rmtree(cache.root / "references", ignore_errors=True)
        start = context.Barrier(2)
        # From 20 ms before the cleaner to 20 ms after it; every second time five times as far,
        # for a disk or a machine that is slow now.
        later = (number - 20) / 1000 * (5 if number % 2 else 1)

        def clean(start=start, digest=digest, later=later) -> None:
            start.wait()
            time.sleep(max(-later, 0))
            cache.remove(digest, keep.is_wanted)
            os._exit(0)

        cleaner = context.Process(target=clean)
        cleaner.start()
        start.wait()
        time.sleep(max(later, 0))
        found = cache.use(digest, run)
        cleaner.join()
        outcomes.add(found is not None)
        if found:
            assert (found.files / "sub" / "file").read_bytes() == str(number).encode()
    assert outcomes == {True, False}, "both ways round have been seen"


def test_a_cleaner_that_decides_is_waited_for(cache: Cache, tmp_path: Path) -> None:
    """Two are at work: the end of one says nothing about the other."""
    asset = publish(cache)
    with leaving.marked(asset.root), ThreadPoolExecutor() as threads:
        with leaving.marked(asset.root):
            asking = threads.submit(cache.use, asset.manifest.digest, a_run(tmp_path))
            time.sleep(0.05)
            assert not asking.done()
        time.sleep(0.05)
        assert not asking.done()
        asset.root.rename(cache.root / "elsewhere")
        assert asking.result(5) is None
    assert not cache.remove(asset.manifest.digest, keep.is_wanted), "another one was faster"


@pytest.mark.parametrize(
    ("read", "asked"),
    [
        ("", lambda cache, digest: cache.use(digest, None)),
        ("files", lambda cache, digest: next(iter(keep.overview(cache)), None)),
    ],
    ids=["use", "list"],
)
def test_it_goes_while_it_is_read(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, read: str, asked: Callable[[Cache, str], Any]
) -> None:
    """A folder was there when it was asked for, and is not when it is read."""
    asset = publish(cache)
    look = os.scandir

    def too_late(path: str | Path) -> Any:
        if Path(path) == asset.root / read and asset.root.exists():
            asset.root.rename(cache.root / "elsewhere")
        return look(path)

    monkeypatch.setattr(os, "scandir", too_late)
    assert asked(cache, asset.manifest.digest) is None
    assert not asset.root.exists(), "it did not go"


def test_it_goes_between_the_look_and_the_answer(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is named who would hold it."""
    asset = publish(cache)
    look = cache.asset

    def seen_last(digest: str) -> Asset | None:
        found = look(digest)
        assert cache.remove(digest, keep.is_wanted)
        return found

    monkeypatch.setattr(cache, "asset", seen_last)
    assert cache.use(asset.manifest.digest, None) is None


def test_a_cleaner_killed_while_it_decides(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = publish(cache)
    digest, run = asset.manifest.digest, a_run(tmp_path)

    def dies(run: Path) -> bool:
        os.kill(os.getpid(), signal.SIGKILL)
        return False

    assert cache.use(digest, run)
    cleaner = multiprocessing.get_context("fork").Process(target=cache.remove, args=(digest, dies))
    cleaner.start()
    cleaner.join(30)
    assert cleaner.exitcode == -signal.SIGKILL
    assert list(asset.root.glob("leaving.*"))
    monkeypatch.setattr(leaving, "PATIENCE", 0.1)
    assert cache.use(digest, run)
    assert not list(asset.root.glob("leaving.*"))
    assert not cache.remove(digest, keep.is_wanted)


def test_what_is_replaced_goes_when_the_new_one_has_its_name(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real kill at the moment of removal, and a reader that had opened a file before."""
    asset = publish(cache)
    with (asset.files / "sub" / "file").open("rb") as reading:
        work = cache.work(URI, shared=True)
        servers.write_tree(work / "files", {"sub/file": b"data"})
        killer = multiprocessing.get_context("fork").Process(target=replace_and_die, args=(work,))
        killer.start()
        killer.join(30)
        assert killer.exitcode == -signal.SIGKILL
        assert reading.read() == b"data"
    assert cache.asset(asset.manifest.digest)
    left = list((cache.root / "trash").iterdir())
    assert len(left) == 1
    cache.empty_trash(keep.HOUR)
    assert left[0].exists(), "it has lost its name just now: its cleaner may put it back"
    os.utime(left[0], (1e9, 1e9))
    for path in left[0].rglob("*"):
        os.utime(path, (1e9, 1e9))
    cache.empty_trash(keep.HOUR)
    assert not left[0].exists()


def replace_and_die(work: Path) -> None:
    """``--fresh``, killed when it begins to remove the old files."""
    shutil.rmtree = lambda *args, **more: os.kill(os.getpid(), signal.SIGKILL)
    Cache(work.parents[1]).publish(work, manifest.make(work / "files"), replace=True)


def test_trash_of_a_cleaner_that_is_just_deciding_is_put_back(cache: Cache, tmp_path: Path) -> None:
    digest, run = publish(cache).manifest.digest, a_run(tmp_path)
    old = time.time() - keep.DAY
    for path in (cache.root / "assets" / digest).rglob("*"):
        os.utime(path, (old, old))
    cache.use(digest, run)

    def wanted(run: Path) -> bool:
        keep.clean(cache, 30, lambda text: None, remove=True)  # a second cleaner, meanwhile
        return True

    assert not cache.remove(digest, wanted)
    assert cache.asset(digest)


def test_a_clock_that_is_wrong_here_removes_nothing(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = publish(cache)
    monkeypatch.setattr(time, "time", lambda: 4e9)  # this node believes it is 2096
    assert keep.clean(cache, 30, lambda text: None, remove=True) == []
    os.utime(asset.root / "used", (5e9, 5e9))  # another one had an even worse clock
    assert keep.clean(cache, 0.001, lambda text: None, remove=True) == []


def test_half_fetched_assets_go_when_nobody_comes_back(cache: Cache) -> None:
    publish(cache)
    for name, old in (("old", True), ("new", False), ("locked", True)):
        work = cache.root / "work" / f"{name}@host"
        (work / "files").mkdir(parents=True)
        for path in (work / "files", work):
            os.utime(path, (1e9, 1e9) if old else None)
    with cache.locked("locked", print):
        keep.clean(cache, 1, lambda text: None, remove=True)
    assert {path.name for path in cache.work_folders()} == {"new@host", "locked@host"}


def test_what_another_machine_left_is_taken_over_but_not_while_it_writes(cache: Cache) -> None:
    left = cache.work(URI, shared=True)
    (left / "files" / "half").write_bytes(b"half")
    theirs = left.rename(left.with_name(left.name.partition("@")[0] + "@other-node"))
    assert not list((cache.work(URI, shared=True) / "files").iterdir()), "it may be alive"
    shutil.rmtree(cache.work(URI, shared=True))
    for path in (*theirs.rglob("*"), theirs):
        os.utime(path, (1e9, 1e9))
    assert (cache.work(URI, shared=True) / "files" / "half").exists()
    assert not theirs.exists()


def test_verify_finds_what_has_the_same_size_and_time(cache: Cache, tmp_path: Path) -> None:
    asset = publish(cache)
    assert keep.verify(asset.root, lambda file: None) == asset.manifest
    path = asset.files / "sub" / "file"
    facts = path.stat()
    path.write_bytes(b"dAta")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(RdtlError, match="RDTL-G003"):
        keep.verify(asset.root, lambda file: None)
    done = rdtl("stage", "verify", str(URI), "--cache", str(cache.root), "--json", cwd=tmp_path)
    assert done.returncode == 1
    (answer,) = json.loads(done.stdout)["assets"]
    assert (answer["ok"], answer["error"]["code"]) == (False, "RDTL-G003")
    assert "sub/file" in done.stderr


def test_a_manifest_that_was_rewritten_to_fit_is_found(cache: Cache) -> None:
    asset = publish(cache)
    (asset.files / "sub" / "file").write_bytes(b"other")
    (asset.root / "manifest.json").write_text(manifest.make(asset.files).text)
    assert cache.asset(asset.manifest.digest) is None
    with pytest.raises(RdtlError, match="RDTL-G003"):
        keep.verify(asset.root, lambda file: None)


def test_a_damaged_asset_makes_room_for_a_whole_one(cache: Cache) -> None:
    asset = publish(cache)
    (asset.files / "sub" / "file").unlink()
    assert cache.use(asset.manifest.digest, None) is None
    assert publish(cache).root == asset.root
    assert cache.asset(asset.manifest.digest)


def test_list_says_where_it_came_from(cache: Cache, tmp_path: Path) -> None:
    asset = publish(cache)
    cache.use(asset.manifest.digest, a_run(tmp_path))
    done = rdtl("stage", "list", "--cache", str(cache.root), "--json", cwd=tmp_path)
    (listed,) = json.loads(done.stdout)["assets"]
    assert listed["uris"] == [str(URI)]
    assert listed["runs"] == [str(tmp_path / "runs" / "r")]
    assert (listed["size"], listed["files"], listed["whole"]) == (4, 1, True)


def test_doctor_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(kind="local", assets=str(tmp_path / "new" / "cache"))
    assert [finding.severity for finding in checks.staging(site, tmp_path)] == ["ok", "ok"]
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    (found, _) = checks.staging(site, tmp_path)
    assert (found.code, found.severity) == ("RDTL-G012", "warning")
    broken = tmp_path / "rclone"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    (found, _) = checks.staging(site, tmp_path)
    assert (found.code, found.severity) == ("RDTL-G012", "warning")
