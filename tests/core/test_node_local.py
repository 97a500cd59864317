"""Copies on a node's own disk: once, proven, and never a reason to fail."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from launcher.core import files, manifest, node_local
from launcher.core.errors import EXIT_REQUEUE, EXIT_SAVED, RdtlError
from launcher.core.job import Stopped
from launcher.core.manifest import Manifest
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.core.runtimes import Bind, Container

ROOT = Path(__file__).parents[2]
TICK_S = 0.05
"""The kernel's times of changes go in steps of some milliseconds."""


@pytest.fixture
def shared(tmp_path: Path) -> tuple[Path, Manifest]:
    """An asset of a cache."""
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    (work / "sub" / "a").write_bytes(os.urandom(100_000))
    (work / "b é").write_bytes(b"b")
    contents = manifest.make(work)
    folder = tmp_path / "cache" / "assets" / contents.digest / "files"
    folder.parent.mkdir(parents=True)
    work.rename(folder)
    return folder, contents


def test_many_processes_of_a_node_copy_once(shared: tuple[Path, Manifest], tmp_path: Path) -> None:
    folder, contents = shared
    context = multiprocessing.get_context("fork")
    copies = context.SimpleQueue()
    real = shutil.copy2

    def ask() -> None:
        node_local.shutil.copy2 = lambda *a: (copies.put(1), real(*a))[1]
        node_local.bring(folder, contents, tmp_path / "local", print)
        os._exit(0)

    processes = [context.Process(target=ask) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    counted = 0
    while not copies.empty():
        counted += copies.get()
    assert counted == len(contents.files)
    copy = node_local.bring(folder, contents, tmp_path / "local", print)
    assert copy and manifest.differences(copy, contents) == []


def test_a_copy_that_was_cut_short_is_made_again(
    shared: tuple[Path, Manifest], tmp_path: Path
) -> None:
    folder, contents = shared
    copy = node_local.bring(folder, contents, tmp_path, print)
    assert copy
    (copy / "sub" / "a").write_bytes(b"short")
    (copy.with_name(f"{copy.name}.part") / "sub").mkdir(parents=True)
    again = node_local.bring(folder, contents, tmp_path, print)
    assert again == copy and manifest.differences(copy, contents) == []
    assert not copy.with_name(f"{copy.name}.part").exists()


def alter(path: Path) -> None:
    """Other bytes, with the length and the time of modification that were there."""
    facts = path.stat()
    time.sleep(TICK_S)
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@pytest.mark.parametrize("anew", [False, True])
def test_a_copy_that_was_altered_is_made_again(
    shared: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anew: bool
) -> None:
    folder, contents = shared
    copy = node_local.bring(folder, contents, tmp_path, print)
    assert copy
    alter(copy / "sub" / "a")
    if anew:  # a disk that lost bytes without a write: only a new start of the node asks again
        copy.with_name(f"{copy.name}.proof").write_text(node_local._state(copy))
        assert node_local.bring(folder, contents, tmp_path, print) == copy
        assert manifest.differences(copy, contents)
        (tmp_path / "boot").write_text("another")
        monkeypatch.setattr(node_local, "BOOT", tmp_path / "boot")
    assert node_local.bring(folder, contents, tmp_path, print) == copy
    assert manifest.differences(copy, contents) == []


@pytest.mark.parametrize("what", ["file", "pipe"])
def test_a_copy_to_which_something_was_added_is_made_again(
    shared: tuple[Path, Manifest], tmp_path: Path, what: str
) -> None:
    copy = node_local.bring(*shared, tmp_path, print)
    assert copy
    (copy / "sub" / "more").touch() if what == "file" else os.mkfifo(copy / "sub" / "more")
    assert node_local.bring(*shared, tmp_path, print) == copy
    assert not (copy / "sub" / "more").exists()


def test_bytes_are_read_again_only_when_something_was_touched(
    shared: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = node_local.bring(*shared, tmp_path, print)
    assert copy
    asked: list[Path] = []
    real = files.sha256
    monkeypatch.setattr(files, "sha256", lambda path: (asked.append(path), real(path))[1])
    monkeypatch.setattr(shutil, "copy2", None)
    assert node_local.bring(*shared, tmp_path, print) == copy and asked == []
    time.sleep(TICK_S)
    os.utime(copy / "b é")
    assert node_local.bring(*shared, tmp_path, print) == copy and len(asked) == 2
    assert node_local.bring(*shared, tmp_path, print) == copy and len(asked) == 2


def test_a_copy_is_on_the_disk_before_it_has_its_name(
    shared: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[bool, bool]] = []
    real = files.sync_file_system

    def sync(work: Path) -> None:
        whole = manifest.differences(work, shared[1]) == []
        flushed.append((whole, work.with_suffix("").exists()))
        real(work)

    monkeypatch.setattr(files, "sync_file_system", sync)
    assert node_local.bring(*shared, tmp_path, print)
    assert flushed == [(True, False)]


def test_a_disk_that_refuses_in_the_middle_is_no_failure(
    shared: tuple[Path, Manifest], tmp_path: Path
) -> None:
    said: list[str] = []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        assert node_local.bring(*shared, tmp_path, said.append) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in said[0] and "reading from the shared cache" in said[0]
    assert not list(tmp_path.glob("rdtl-assets-*/*.part"))
    assert node_local.bring(*shared, tmp_path, said.append)


def test_a_place_that_is_no_folder_is_no_failure(
    shared: tuple[Path, Manifest], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    assert node_local.bring(*shared, tmp_path / "file", said.append) is None
    assert "Not a directory" in said[0]


def test_a_signal_ends_the_copy_between_two_files(
    shared: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []
    said: list[str] = []
    real = shutil.copy2
    monkeypatch.setattr(node_local, "COPIERS", 1)
    monkeypatch.setattr(shutil, "copy2", lambda *a: (heard.append(signal.SIGUSR2), real(*a))[1])
    with pytest.raises(Stopped) as stopped:
        node_local.bring(*shared, tmp_path, said.append, heard)
    assert said == ["stopped by SIGUSR2 before all assets lay on this node"]
    assert stopped.value.exit_status == EXIT_REQUEUE and len(heard) == 1
    assert [path.suffix for path in tmp_path.glob("rdtl-assets-*/*")] == [".lock"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGUSR2, EXIT_REQUEUE), (signal.SIGTERM, EXIT_SAVED)]
)
def test_a_task_that_is_told_to_end_while_another_one_copies(
    shared: tuple[Path, Manifest], tmp_path: Path, number: int, code: int
) -> None:
    run = RunDir(tmp_path / "run")
    target = run.root / "assets/k/set"
    files.write_text(target.parent / "manifest.json", shared[1].text)
    target.symlink_to(shared[0])
    image = Container("apptainer", "/x.sif", "x", "", "", "")
    config = {
        "asset_cache": str(tmp_path / "cache"),
        "node_local": str(tmp_path),
        "assets": [{"key": "k", "uri": "gs://b/x", "target": str(target)}],
    }
    stage = Stage("train", ("true",), container=image)
    files.write_json(run.plan, Plan("x", "local", (stage,), config).to_dict())
    folder = tmp_path / f"rdtl-assets-{os.geteuid()}"
    folder.mkdir(mode=0o700)
    argv = [sys.executable, "-P", "-m", "jobs.node", str(run.root), "train", "0", "1"]
    with node_local._locked(folder / f"{shared[1].digest}.lock", ()):
        task = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOT)})
        lock = (folder / f"{shared[1].digest}.lock").stat()
        deadline = time.monotonic() + 30
        while not any(
            link.exists() and link.stat().st_ino == lock.st_ino
            for link in Path(f"/proc/{task.pid}/fd").glob("*")
        ):
            assert time.monotonic() < deadline and task.poll() is None
            time.sleep(0.05)
        task.send_signal(number)
        assert task.wait(30) == 1  # StageFailedError, for the scheduler
    assert run.ledger.exit_codes("train", 0, 1) == {0: code}


def test_a_shared_copy_that_was_altered_is_refused(
    shared: tuple[Path, Manifest], tmp_path: Path
) -> None:
    folder, contents = shared
    (folder / "b é").write_bytes(b"B")
    with pytest.raises(RdtlError, match="RDTL-G003"):
        node_local.bring(folder, contents, tmp_path, print)
    assert not list(tmp_path.glob(f"rdtl-assets-*/{contents.digest}"))


def test_without_room_the_shared_one_is_read(
    shared: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(200_000, 100_000, 100_000))
    said: list[str] = []
    assert node_local.bring(*shared, tmp_path, said.append) is None
    assert "0.0 GB free" in said[0]


def test_a_folder_that_others_can_write_is_refused(
    shared: tuple[Path, Manifest], tmp_path: Path
) -> None:
    (tmp_path / f"rdtl-assets-{os.geteuid()}").mkdir(mode=0o700)
    (tmp_path / f"rdtl-assets-{os.geteuid()}").chmod(0o777)
    with pytest.raises(RdtlError, match="RDTL-G005"):
        node_local.bring(*shared, tmp_path, print)


def test_a_container_sees_the_copy_under_the_same_path(
    shared: tuple[Path, Manifest], tmp_path: Path
) -> None:
    folder, contents = shared
    target = tmp_path / "run/assets/dataset.sets.0.path/set"
    stage = Stage("train", ("true",), container=Container("apptainer", "/x.sif", "x", "", "", ""))
    config = {
        "asset_cache": str(tmp_path / "cache"),
        "node_local": str(tmp_path / "local"),
        "assets": [{"key": "k", "uri": "gs://b/x", "target": str(target)}],
    }
    assert node_local.placed(stage, config, print) == stage, "nothing is staged yet"
    files.write_text(target.parent / "manifest.json", contents.text)
    target.symlink_to(folder)
    placed = node_local.placed(stage, config, print)
    assert placed.container
    (bind,) = placed.container.binds
    copy = tmp_path / "local" / f"rdtl-assets-{os.geteuid()}" / contents.digest
    assert bind == Bind(str(copy), str(folder))
    assert node_local.placed(stage, {**config, "node_local": None}, print) == stage
