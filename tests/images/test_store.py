"""The store: whole or absent, built once, and never another image than the one recorded."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from launcher.core.errors import RdtlError, UsageError
from launcher.core.node_facts import architecture
from launcher.core.runtime_errors import check_image
from launcher.core.runtimes import Container
from launcher.images import clean, definition, sif
from launcher.images.builder import Builder
from launcher.images.resolve import from_file, intact, resolve, verify
from launcher.images.store import BuiltImage, Store
from tests.images import provision, small, ways

KEY = "a" * 64
needs_apptainer = pytest.mark.skipif(
    small.unavailable("apptainer") is not None, reason=str(small.unavailable("apptainer"))
)
forked = multiprocessing.get_context("fork")


def image(folder: Path, size: int = 1000) -> BuiltImage:
    """What a builder leaves: a file of ``size`` bytes and a log; both are really written."""
    (folder / "build.log").write_text("built\n")
    path = folder / "image.sif"
    with path.open("wb") as handle:
        handle.write(os.urandom(size))
        handle.flush()
    status = path.stat()
    return BuiltImage(
        "tiny", "apptainer", str(path), "0" * 64, KEY, "1" * 64, "amd64", status.st_size,
        "2026-01-01T00:00:00+00:00", {}, status.st_mtime_ns,
    )  # fmt: skip


def counting(builds: Path, seconds: float) -> Callable[[Path], BuiltImage]:
    """A builder that needs time and leaves a line in the file ``builds`` when it begins."""

    def make(folder: Path) -> BuiltImage:
        with builds.open("a") as handle:
            handle.write(f"{os.getpid()}\n")
        time.sleep(seconds)
        return image(folder)

    return make


def left(store: Store) -> list[str]:
    """Names of unfinished work."""
    return [path.name for path in (store.root / "tmp").glob("*")]


def test_fifty_who_ask_at_once_cause_one_build_and_get_the_same_image(tmp_path: Path) -> None:
    builds, answers = tmp_path / "builds", tmp_path / "answers"
    answers.mkdir()
    store = Store(tmp_path / "store")

    def ask(number: int) -> None:
        found = store.get_or_make(KEY, counting(builds, 0.5))
        content = Path(found.reference).read_bytes()
        (answers / str(number)).write_text(f"{found.reference} {hash(content)}")

    children = [forked.Process(target=ask, args=(number,)) for number in range(50)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 50
    assert len(builds.read_text().splitlines()) == 1
    assert len({path.read_text() for path in answers.iterdir()}) == 1
    assert left(store) == []


@pytest.mark.parametrize("times", [1, 2])
def test_a_builder_killed_in_the_middle_leaves_nothing_that_counts(
    tmp_path: Path, times: int
) -> None:
    builds = tmp_path / "builds"
    store = Store(tmp_path / "store")

    def build_for_ever(folder: Path) -> BuiltImage:
        image(folder)  # the file is complete, but it is not published
        return counting(builds, 600)(folder)

    for number in range(times):
        child = forked.Process(target=store.get_or_make, args=(KEY, build_for_ever))
        child.start()
        while not builds.exists() or len(builds.read_text().splitlines()) <= number:
            assert child.is_alive()
            time.sleep(0.01)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert store.find(KEY) is None
        assert len(left(store)) == 1
    assert store.get_or_make(KEY, counting(builds, 0)).size_bytes == 1000
    assert left(store) == []
    assert store.named("tiny", "apptainer") == store.find(KEY)


def test_who_waits_for_a_builder_that_is_killed_builds_itself(tmp_path: Path) -> None:
    builds = tmp_path / "builds"
    store = Store(tmp_path / "store")
    first = forked.Process(target=store.get_or_make, args=(KEY, counting(builds, 600)))
    first.start()
    while not builds.exists():
        time.sleep(0.01)
    second = forked.Process(target=store.get_or_make, args=(KEY, counting(builds, 0)))
    second.start()
    time.sleep(0.3)
    assert second.is_alive()  # it waits
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    second.join(30)
    assert second.exitcode == 0
    assert store.find(KEY) is not None
    assert len(builds.read_text().splitlines()) == 2


def test_two_builders_whose_file_system_ignores_locks_publish_one_whole_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", lambda *arguments: None)
    builds = tmp_path / "builds"
    store = Store(tmp_path / "store")
    answers = tmp_path / "answers"
    answers.mkdir()

    together = forked.Barrier(2)

    def ask(number: int) -> None:
        together.wait(30)
        found = store.get_or_make(KEY, counting(builds, 1))
        (answers / str(number)).write_text(str(found.mtime_ns))

    children = [forked.Process(target=ask, args=(number,)) for number in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0]
    assert len(builds.read_text().splitlines()) == 2
    found = store.find(KEY)
    assert found is not None
    assert found.mtime_ns == Path(found.reference).stat().st_mtime_ns
    assert {path.read_text() for path in answers.iterdir()} == {str(found.mtime_ns)}
    assert left(store) == []


def test_remains_that_may_not_be_removed_do_not_stop_the_next_build() -> None:
    """A killed build with --fakeroot leaves files of other user ids."""
    if os.geteuid() != 0:
        pytest.skip("giving files to another user needs root")
    with ways.open_folder() as folder:
        store = Store(folder / "store")
        foreign = store.root / "tmp" / f"{KEY[:16]}@{socket.gethostname()}.999999999.0" / "root"
        foreign.mkdir(parents=True)
        (foreign / "file").write_text("of another user")
        for path in (store.root, store.root / "tmp", foreign.parent):
            os.chown(path, 4242, 4242)

        def as_user() -> None:
            os.setgroups([])
            os.setuid(4242)
            store.get_or_make(KEY, image)

        child = forked.Process(target=as_user)
        child.start()
        child.join(30)
        assert store.find(KEY) is not None
        assert (foreign / "file").exists()


def test_an_image_whose_file_was_removed_is_built_again(tmp_path: Path) -> None:
    builds = tmp_path / "builds"
    store = Store(tmp_path / "store")
    Path(store.get_or_make(KEY, counting(builds, 0)).reference).unlink()
    assert store.find(KEY) is None
    assert store.get_or_make(KEY, counting(builds, 0)).size_bytes == 1000
    assert len(builds.read_text().splitlines()) == 2


def test_only_what_is_replaced_and_unused_goes(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for key in ("a" * 64, "b" * 64, "c" * 64):  # of one name: the last is the newest
        store.get_or_make(key, lambda folder, key=key: replace(image(folder), key=key))
    packages = store.root / "wheels/lock-amd64"
    packages.mkdir(parents=True)
    long_ago = time.time() - 40 * clean.DAY_S
    for path in (*store.root.glob("*/image.json"), packages):
        os.utime(path, (long_ago, long_ago))
    kept = store.find("b" * 64)
    assert kept
    store.use(kept)  # somebody asks for it again
    found = clean.find(store, unused_days=30)
    assert [one.path for one in found] == [store.root / ("a" * 64), packages]
    assert [one.size for one in found][1] == 0 and found[0].size > 1000
    for one in found:
        store.remove(one.path)
    assert {one.key for one in store.images()} == {"b" * 64, "c" * 64}
    assert left(store) == [] and not packages.exists()
    assert [one.path.name for one in clean.find(store, unused_days=0)] == ["b" * 64]


@pytest.fixture
def four_megabytes(tmp_path: Path) -> Iterator[Path]:
    """A file system that is soon full."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_has_its_code_and_nothing_half_is_published(four_megabytes: Path) -> None:
    store = Store(four_megabytes / "store")
    with pytest.raises(RdtlError, match="RDTL-G009"):
        store.get_or_make(KEY, lambda folder: image(folder, 8_000_000))
    assert store.images() == []
    assert left(store) == []
    assert store.get_or_make(KEY, image).size_bytes == 1000  # room again: it goes on


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_sif: Container) -> Builder:
    """A definition called `tiny` whose image, a real SIF, is in the store of the builder."""
    images = tmp_path / "configs" / "images"
    (images / "locks").mkdir(parents=True)
    shipped = definition.config.find("images", "sim-cpu")
    (images / "tiny.yaml").write_text(yaml.safe_dump(yaml.safe_load(shipped.read_text())))
    (images / "locks" / "tiny.txt").write_text("six==1.17.0 \\\n    --hash=sha256:" + "0" * 64)
    monkeypatch.chdir(tmp_path)
    lock = definition.load("tiny")[1].sha256

    def copy(folder: Path) -> BuiltImage:
        shutil.copyfile(small_sif.image, folder / "image.sif")
        (folder / "build.log").write_text("copied\n")
        return replace(from_file(folder / "image.sif", KEY), name="tiny", lock_sha256=lock)

    builder = Builder(cache=str(tmp_path / "store"), apptainer=small_sif.program)
    Store(builder.cache_directory()).get_or_make(KEY, copy)
    return builder


@needs_apptainer
def test_a_built_image_is_found_by_name_and_by_path(tiny: Builder) -> None:
    found = resolve("tiny", "apptainer", tiny)
    assert (found.architecture, found.key) == (architecture(), KEY)
    assert resolve(found.reference, "apptainer", tiny) == found


@needs_apptainer
def test_each_use_by_path_keeps_an_image(tiny: Builder) -> None:
    """A person names the file, and so does each task of a plan."""
    found = resolve("tiny", "apptainer", tiny)
    record, before = Path(found.reference).with_name("image.json"), time.time() - clean.DAY_S
    file = {"size_bytes": found.size_bytes, "mtime_ns": found.mtime_ns}
    task = Container(
        "apptainer", found.reference, "tiny", found.sha256, "", found.architecture, **file
    )
    for use in (
        lambda: resolve(found.reference, "apptainer", tiny),
        lambda: check_image(task, architecture()),
    ):
        os.utime(record, (before, before))
        use()
        assert record.stat().st_mtime > before + 1


def test_what_may_not_be_removed_has_a_code(tmp_path: Path) -> None:
    with pytest.raises(RdtlError) as caught:
        Store(tmp_path).remove(tmp_path / "gone")
    assert caught.value.problem.code == "RDTL-G018" and "gone" in caught.value.problem.where


@needs_apptainer
def test_an_image_that_is_not_built_names_the_command_that_builds_it(tiny: Builder) -> None:
    with pytest.raises(UsageError, match="rdtl image build sim-cpu --with apptainer") as caught:
        resolve("sim-cpu", "apptainer", tiny)
    assert caught.value.problem.code == "RDTL-C024"
    with pytest.raises(UsageError, match="RDTL-C024"):
        resolve("/nowhere/image.sif", "apptainer", tiny)


def flip_a_byte(path: Path) -> None:
    with path.open("r+b") as handle:
        handle.seek(-4096, os.SEEK_END)
        byte = handle.read(1)[0]
        handle.seek(-1, os.SEEK_CUR)
        handle.write(bytes([byte ^ 1]))


@needs_apptainer
def test_one_flipped_bit_of_an_image_is_refused(tiny: Builder) -> None:
    path = Path(resolve("tiny", "apptainer", tiny).reference)
    flip_a_byte(path)
    for name in ("tiny", str(path)):
        with pytest.raises(RdtlError, match="RDTL-C025"):
            resolve(name, "apptainer", tiny)
    builds = path.parent.parent.parent / "builds"
    store = Store(tiny.cache_directory())
    store.get_or_make(KEY, counting(builds, 0), intact)  # asking for it again makes it again
    assert len(builds.read_text().splitlines()) == 1
    store.get_or_make(KEY, counting(builds, 0), intact)
    assert len(builds.read_text().splitlines()) == 1


@needs_apptainer
def test_a_change_that_hides_behind_the_old_time_is_found_by_a_full_check(tiny: Builder) -> None:
    found = resolve("tiny", "apptainer", tiny)
    flip_a_byte(Path(found.reference))
    os.utime(found.reference, ns=(found.mtime_ns, found.mtime_ns))
    verify(found)  # what every submission does: size and time
    with pytest.raises(RdtlError, match="RDTL-C025"):
        verify(found, full=True)


@needs_apptainer
def test_a_touched_but_equal_image_is_accepted(tiny: Builder) -> None:
    found = resolve("tiny", "apptainer", tiny)
    os.utime(found.reference)
    assert resolve("tiny", "apptainer", tiny) == found


@needs_apptainer
def test_an_image_of_another_lock_than_the_definitions_is_refused(
    tiny: Builder, tmp_path: Path
) -> None:
    lock = tmp_path / "configs" / "images" / "locks" / "tiny.txt"
    lock.write_text(lock.read_text().replace("six==1.17.0", "six==1.16.0"))
    with pytest.raises(RdtlError, match="RDTL-C027") as caught:
        resolve("tiny", "apptainer", tiny)
    assert caught.value.problem.fix == "rdtl image build tiny --with apptainer"


@needs_apptainer
def test_an_image_of_another_architecture_is_refused(tmp_path: Path, small_sif: Container) -> None:
    foreign = tmp_path / "foreign.sif"
    data = tmp_path / "data"
    data.write_bytes(b"no file system, but marked as one for another processor")
    number = {"amd64": "4", "arm64": "2"}[architecture()]  # SIF's number of the other one
    program = [small_sif.program, "-q", "sif"]
    subprocess.run([*program, "new", str(foreign)], check=True, capture_output=True)
    options = ["--datatype", "4", "--partfs", "1", "--parttype", "2", "--partarch", number]
    argv = [*program, "add", *options, str(foreign), str(data)]
    subprocess.run(argv, check=True, capture_output=True)
    assert sif.architecture(foreign) != architecture()
    with pytest.raises(RdtlError, match="RDTL-C026"):
        resolve(str(foreign), "apptainer", Builder())


@needs_apptainer
@pytest.mark.parametrize("size", [10, 1000])
def test_a_file_that_is_no_sif_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "x.sif").write_bytes(b"\0" * size)
    with pytest.raises(RdtlError, match="RDTL-C025"):
        resolve(str(tmp_path / "x.sif"), "apptainer", Builder())


@needs_apptainer
def test_labels_are_read_from_the_file_as_apptainer_reads_them(small_sif: Container) -> None:
    program = provision.found_apptainer()
    assert program is not None
    argv = [program, "inspect", "--labels", small_sif.image]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    assert sif.labels(Path(small_sif.image)) == dict(line.split(": ", 1) for line in lines)
