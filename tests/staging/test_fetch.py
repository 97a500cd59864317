"""In: whole, proven, once; what really goes wrong on the way ends well or with a code."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from launcher.core import manifest
from launcher.core.errors import RdtlError
from launcher.staging import engine, failures, fetch
from launcher.staging.cache import Cache
from tests.cli.interrupting import interrupt
from tests.cli.run_rdtl import rdtl
from tests.staging import servers
from tests.staging.conftest import S3, SECRET, order, tree
from tests.staging.faults import Answer

FILES = {"a.bin": b"a" * 300_000, "b/c.bin": os.urandom(200_000), "b/d.txt": b"d"}


def published(cache: Cache) -> list[str]:
    """Everything that looks whole."""
    return [folder.name for folder in cache.assets()]


def test_odd_names_arrive_as_they_are_and_are_not_fetched_again(s3: S3, cache: Cache) -> None:
    servers.write_tree(s3.root / "bkt/x", servers.ODD)
    first = fetch.bring(cache, order("x"))
    assert tree(first.path) == servers.ODD
    assert first.asset.manifest == manifest.make(s3.root / "bkt/x")
    assert cache.root / "assets" / first.asset.manifest.digest == first.asset.root
    again = fetch.bring(cache, order("x"))
    assert (again.moved, again.path) == (0, first.path)
    assert set(s3.fetched().values()) == {1}
    assert not list(Path.cwd().glob("ran-*"))


def test_one_file_and_a_folder_that_holds_a_file_of_its_own_name(s3: S3, cache: Cache) -> None:
    s3.put(**{"one.bin": b"one", "same/same": b"inner"})
    assert fetch.bring(cache, order("one.bin")).path.read_bytes() == b"one"
    assert tree(fetch.bring(cache, order("same")).path) == {"same": b"inner"}


def test_a_change_in_the_store_is_seen_and_the_old_state_stays(s3: S3, cache: Cache) -> None:
    s3.put(**{"x/a": b"old", "x/b": b"b"})
    old = fetch.bring(cache, order("x"))
    s3.put(**{"x/a": b"new"})
    new = fetch.bring(cache, order("x"))
    assert (tree(old.path)["a"], tree(new.path)["a"]) == (b"old", b"new")


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda body: Answer(500, b"internal"), id="500", marks=pytest.mark.slow),
        pytest.param(lambda body: Answer(429, b"slow down"), id="429"),
        pytest.param(lambda body: Answer(200, body[: len(body) // 2], len(body)), id="cut"),
        pytest.param(
            lambda body: Answer(200, body[: len(body) // 2]), id="truncated", marks=pytest.mark.slow
        ),
        pytest.param(lambda body: Answer(200, b"!" + body[1:]), id="altered"),
    ],
)
def test_what_breaks_now_and_then_is_fetched_again(s3: S3, cache: Cache, broken) -> None:
    s3.put(**{f"x/{name}": data for name, data in FILES.items()})
    s3.proxy.fault = lambda path, number, body: broken(body) if number == 0 else None
    assert tree(fetch.bring(cache, order("x")).path) == FILES


def test_an_object_that_is_not_what_the_store_says_is_never_published(s3: S3, cache: Cache) -> None:
    s3.put(**{f"x/{name}": data for name, data in FILES.items()})
    s3.proxy.fault = lambda path, number, body: (
        Answer(200, b"!" + body[1:]) if path.endswith("a.bin") else None
    )
    with pytest.raises(RdtlError, match="RDTL-G003") as caught:
        fetch.bring(cache, order("x"))
    assert "a.bin" in caught.value.problem.where
    assert published(cache) == []
    s3.proxy.fault = lambda path, number, body: None
    good = {path: n for path, n in s3.fetched().items() if not path.endswith("a.bin")}
    assert tree(fetch.bring(cache, order("x")).path) == FILES
    assert {p: n for p, n in s3.fetched().items() if p in good} == good, "kept from the first try"


def test_a_store_that_only_fails_ends_with_a_code(
    s3: S3, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "WAITS", ())
    monkeypatch.setattr(engine, "MOVING", (*engine.MOVING, "--low-level-retries=1"))
    s3.put(**{"x/a": b"a"})
    s3.proxy.fault = lambda path, number, body: Answer(503, b"down")
    with pytest.raises(RdtlError, match="RDTL-G024") as caught:
        fetch.bring(cache, order("x"))
    assert caught.value.exit_status == 4
    assert SECRET not in str(caught.value)


def test_nothing_there_is_no_empty_asset(s3: S3, cache: Cache) -> None:
    s3.put(**{"x/a": b"a"})
    for place in ("nope", "x/nope"):
        with pytest.raises(RdtlError, match="RDTL-G002"):
            fetch.bring(cache, order(place))
    assert published(cache) == []


def test_a_dead_endpoint_is_given_up_in_time(s3: S3, cache: Cache) -> None:
    s3.put(**{"x/a": b"a"})
    os.environ["RCLONE_CONFIG_T_ENDPOINT"] = f"http://127.0.0.1:{servers.free_port()}"
    began = time.monotonic()
    with pytest.raises(RdtlError, match="RDTL-G011"):
        fetch.bring(cache, order("x"))
    assert time.monotonic() - began < 60


def test_a_server_that_dies_in_the_middle(s3: S3, cache: Cache) -> None:
    files = {f"{n:02}": os.urandom(50_000) for n in range(40)}
    s3.put(**{f"x/{name}": data for name, data in files.items()})
    begun = threading.Event()

    def fault(path: str, number: int, body: bytes) -> None:
        if len(s3.proxy.gets) > 10 and not begun.is_set():
            begun.set()
            s3.server.kill()
            threading.Timer(0.5, s3.server.start).start()

    s3.proxy.fault = fault
    assert tree(fetch.bring(cache, order("x", transfers=2)).path) == files
    assert begun.is_set()


def test_wrong_credentials_and_unknown_remotes_have_a_code(
    s3: S3, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put(**{"x/a": b"a"})
    monkeypatch.setenv("RCLONE_CONFIG_T_SECRET_ACCESS_KEY", "WRONG-KEY")
    with pytest.raises(RdtlError, match="RDTL-G014") as caught:
        fetch.bring(cache, order("x"))
    assert "WRONG-KEY" not in str(caught.value)
    monkeypatch.delenv("RCLONE_CONFIG_T_TYPE")
    with pytest.raises(RdtlError, match="RDTL-G014"):
        fetch.bring(cache, order("x"))


def test_a_source_that_changes_under_the_transfer_is_one_state(s3: S3, cache: Cache) -> None:
    files = {f"{n:02}": b"old" * 1000 for n in range(12)}
    s3.put(**{f"x/{name}": data for name, data in files.items()})
    changed = threading.Event()

    def fault(path: str, number: int, body: bytes) -> None:
        if not changed.is_set():
            changed.set()
            s3.put(**{f"x/{name}": b"new" * 1000 for name in files})

    s3.proxy.fault = fault
    found = tree(fetch.bring(cache, order("x", transfers=2)).path)
    assert found == dict.fromkeys(files, b"new" * 1000)


@pytest.mark.slow
def test_a_source_that_never_rests_is_refused(s3: S3, cache: Cache) -> None:
    s3.put(**{"x/a": b"0000", "x/b": b"b"})

    def fault(path: str, number: int, body: bytes) -> None:
        if path.endswith("/a"):
            s3.put(**{"x/a": f"{number + 1:04}".encode()})

    s3.proxy.fault = lambda path, number, body: (
        fault(path, number, body) or (Answer(200, b"????") if path.endswith("/a") else None)
    )
    with pytest.raises(RdtlError, match=r"RDTL-G0(21|03)"):
        fetch.bring(cache, order("x"))
    assert published(cache) == []


def bring_in_a_process(s3: S3, cache: Cache, *options: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-P", "-m", "launcher", "stage", "in", "rclone:t:bkt/x"]
    argv += ["--cache", str(cache.root), "--transfers", "2", *options]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_killed_in_the_middle_no_finished_file_is_fetched_again(s3: S3, cache: Cache) -> None:
    files = {f"{n:02}": os.urandom(100_000) for n in range(30)}
    s3.put(**{f"x/{name}": data for name, data in files.items()})
    enough = s3.proxy.slow_from(12, 0.3)
    process = bring_in_a_process(s3, cache)
    assert enough.wait(30)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(0.5)  # rclone dies with its parent
    assert published(cache) == []
    (work,) = (cache.root / "work").glob("*/files")
    finished = {path.name for path in work.iterdir() if path.stat().st_size == 100_000}
    assert len(finished) >= 5
    before = s3.fetched()
    s3.proxy.fault = lambda path, number, body: None
    assert tree(fetch.bring(cache, order("x")).path) == files
    again = {path for path, count in s3.fetched().items() if count > before.get(path, 0)}
    assert not {f"x/{name}" for name in finished} & again


def test_an_engine_that_is_killed_leaves_nothing_in_the_asset(s3: S3, cache: Cache) -> None:
    files = {f"{n:02}": os.urandom(3_000_000) for n in range(4)}
    s3.put(**{f"x/{name}": data for name, data in files.items()})
    killed = threading.Event()

    first = threading.Lock()

    def kill(path: str, number: int, body: bytes) -> Answer | None:
        if first.acquire(blocking=False):
            threading.Thread(target=kill_engines, args=(cache, killed)).start()
            return Answer(200, body[:2_000_000], len(body))  # half a file lies there
        killed.wait(20)
        return None

    s3.proxy.fault = kill
    assert tree(fetch.bring(cache, order("x", transfers=2)).path) == files
    assert killed.is_set()


def kill_engines(cache: Cache, done: threading.Event) -> None:
    """SIGKILL to the copying children of this process once a half file lies in the cache."""
    begun = False
    while not begun:
        with suppress(FileNotFoundError):
            begun = any(path.stat().st_size for path in cache.root.glob("work/*/files/*"))
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for pid in children:
        if b"files-from0" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(int(pid), signal.SIGKILL)
            done.set()


def test_fifty_processes_one_transfer(s3: S3, cache: Cache) -> None:
    s3.put(**{f"x/{name}": data for name, data in FILES.items()})
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def ask() -> None:
        staged = fetch.bring(cache, order("x"))
        answers.put((staged.moved, tree(staged.path) == FILES))
        os._exit(0)

    processes = [context.Process(target=ask) for _ in range(50)]
    for process in processes:
        process.start()
    found = [answers.get() for _ in processes]
    for process in processes:
        process.join(60)
    assert all(right for _, right in found)
    assert sum(moved for moved, _ in found) == len(FILES)
    assert set(s3.fetched().values()) == {1}


@pytest.mark.slow
def test_two_writers_where_locks_are_ignored(
    s3: S3, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{n:02}": os.urandom(50_000) for n in range(20)}
    s3.put(**{f"x/{name}": data for name, data in files.items()})
    monkeypatch.setattr("fcntl.flock", lambda *_: (_ for _ in ()).throw(OSError(38, "ENOSYS")))
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(tree(fetch.bring(cache, order("x", transfers=2)).path) == files)
        except BaseException as error:
            answers.put(repr(error))
        os._exit(0)

    processes = [context.Process(target=ask) for _ in range(3)]
    for process in processes:
        process.start()
        time.sleep(0.1)
    assert [answers.get() for _ in processes] == [True] * 3
    assert len(published(cache)) == 1


def test_too_little_space_is_said_before_anything_moves(s3: S3, small_disk: Path) -> None:
    s3.put(**{"x/a": bytes(3_000_000)})
    with pytest.raises(RdtlError, match="RDTL-G009"):
        fetch.bring(Cache(small_disk), order("x"))
    assert s3.fetched() == {}


def test_a_disk_that_fills_meanwhile(s3: S3, small_disk: Path) -> None:
    s3.put(**{f"x/{n}": os.urandom(400_000) for n in range(4)})

    def fill(path: str, number: int, body: bytes) -> None:
        (small_disk / "other").write_bytes(bytes(1_200_000))

    s3.proxy.fault = fill
    with pytest.raises(RdtlError, match="RDTL-G009"):
        fetch.bring(Cache(small_disk), order("x", transfers=1))
    assert published(Cache(small_disk)) == []
    (small_disk / "other").unlink()
    s3.proxy.fault = lambda path, number, body: None
    assert len(tree(fetch.bring(Cache(small_disk), order("x")).path)) == 4


def test_the_secret_is_in_no_file_and_no_process_list(s3: S3, cache: Cache, tmp_path: Path) -> None:
    s3.put(**{"x/a": b"a", "x/b": b"b"})
    seen: list[bytes] = []

    def look(path: str, number: int, body: bytes) -> None:
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                argv = place.read_bytes()
            except OSError:
                continue
            if b"serve\0" not in argv:  # the test's own server is told its key so
                seen.append(argv)

    s3.proxy.fault = look
    process = bring_in_a_process(s3, cache, "--json")
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert any(b"files-from0" in argv for argv in seen), "rclone was seen at work"
    assert not any(SECRET.encode() in argv for argv in seen)
    assert SECRET.encode() not in printed + said
    for path in cache.root.rglob("*"):
        assert SECRET not in str(path)
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()
    assert b'{"progress": {' in said


def test_ctrl_c_keeps_what_was_brought_and_ends_every_helper(s3: S3, cache: Cache) -> None:
    files = {f"{n:02}": os.urandom(100_000) for n in range(30)}
    s3.put(**{f"x/{name}": data for name, data in files.items()})
    s3.proxy.fault = lambda path, number, body: time.sleep(0.3 if len(s3.proxy.gets) > 12 else 0)
    words = ("stage", "in", "rclone:t:bkt/x", "--cache", str(cache.root), "--transfers", "2")
    done = interrupt(*words, when=lambda: len(s3.proxy.gets) >= 15, cwd=cache.root.parent)
    assert done.returncode == 130
    assert "interrupted; what is transferred is kept" in done.stderr
    assert published(cache) == []
    first = s3.fetched()
    s3.proxy.fault = lambda path, number, body: None
    again = rdtl(*words, cwd=cache.root.parent)
    assert again.returncode == 0, again.stderr
    assert len(published(cache)) == 1
    twice = [name for name, count in s3.fetched().items() if count > 1]
    assert len(twice) <= 2 < len(first), "more than what was on its way came again"
