"""Chunks made by several producers and read by several ranks, any of them killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launcher.core.errors import RdtlError, RefusedError, UsageError
from rdt.data import buffer
from rdt.data.batch import Batch
from rdt.data.buffer import Producer
from rdt.data.buffered import BufferedSource
from rdt.data.loader import Loader
from rdt.data.order import Order
from rdt.data.sample_source import SampleSource
from rdt.data.sampler import Sampler
from rdt.data.store import open_store
from rdt.spec.contract import CONTRACTS, LIBERO_VELOCITY
from tests.data import noise

LENGTHS = (5, 40, 50, 70)
CHUNKS, SAMPLES = 6, 16
WITHOUT = replace(LIBERO_VELOCITY, cameras=("", "agentview", "", "eye_in_hand"))
PRODUCE = """
import sys
from pathlib import Path
from tests.data import test_buffer as t
producer = t.producer_of(Path(sys.argv[2]), t.source_of(Path(sys.argv[1])))
with t.buffer.producing(Path(sys.argv[2])):
    producer.publish()
    print("running", flush=True)
    while True:
        producer.make_one() or t.time.sleep(0.01)
"""
CONSUME = """
import json, sys
from pathlib import Path
from tests.data import test_buffer as t
folder, rank, batches = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
source = t.BufferedSource(folder, t.WITHOUT, rank, 2)
with t.Loader(source, t.Sampler(source.order, 8, 4, 2), rank) as loader:
    state = folder.parent / f"state_{rank}.json"
    if state.is_file():
        loader.load_state_dict(json.loads(state.read_text()))
    while loader.taken < 8 * batches:
        print(*next(loader).positions.tolist(), flush=True)
        temporary = state.with_suffix(".new")
        temporary.write_text(json.dumps(loader.state_dict()))
        temporary.replace(state)
"""


def source_of(path: Path, **options: Any) -> SampleSource:
    """Of the four episodes the two with 32 to 64 steps."""
    options = {"contract": WITHOUT, "horizon": 8, "lengths": (32, 64), **options}
    return SampleSource([open_store(path)], **options)


def order_of(source: SampleSource, seed: int = 1) -> Order:
    return Order(source.index.sizes, seed)


def producer_of(folder: Path, source: SampleSource, seed: int = 1) -> Producer:
    return Producer(folder, source, order_of(source, seed), CHUNKS, SAMPLES)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noise") / "set"
    return noise.write(noise.demos(LENGTHS, size=16), folder)


@pytest.fixture
def source(path: Path) -> SampleSource:
    return source_of(path)


@pytest.fixture
def folder(source: SampleSource, tmp_path: Path) -> Path:
    """An empty buffer."""
    with buffer.producing(tmp_path / "buffer"):
        producer_of(tmp_path / "buffer", source).publish()
    return tmp_path / "buffer"


def fill_up(producer: Producer, worker: int = 0, workers: int = 1) -> int:
    made = 0
    while producer.make_one(worker, workers):
        made += 1
    return made


def batches(
    source: SampleSource | BufferedSource, sampler: Sampler, rank: int, first: int = 0
) -> Iterator[Batch]:
    """Copies, endlessly."""
    with Loader(source, sampler, rank) as loader:
        loader.load_state_dict({"taken": first, "order": sampler.order.identity})
        for batch in loader:
            yield Batch(*(values.copy() for values in batch))


def require_equal(found: Batch, expected: Batch) -> None:
    for name in Batch._fields:
        a, b = getattr(found, name), getattr(expected, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize(("ranks", "micro"), [(1, 16), (2, 7), (3, 4)])
def test_every_rank_gets_what_it_would_get_from_the_data(
    ranks: int, micro: int, source: SampleSource, folder: Path
) -> None:
    """Bit for bit, over three epochs and chunk boundaries, with the chunks of two workers."""
    sampler = Sampler(Order(source.index.sizes, 1), ranks * micro, micro, ranks)
    seen: list[int] = []
    with ExitStack() as stack:
        stop = threading.Event()
        for worker in range(2):
            thread = threading.Thread(target=produce, args=(folder, source, worker, stop))
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)
        ways = [
            (batches(BufferedSource(folder, WITHOUT, rank, ranks), sampler, rank),
             batches(source, sampler, rank))
            for rank in range(ranks)
        ]  # fmt: skip
        for _ in range(280 // (ranks * micro)):
            for found, expected in ways:
                one = next(found)
                require_equal(one, next(expected))
                seen += one.positions.tolist()
            assert len(buffer.chunks(folder)) <= CHUNKS, "used chunks make room"
        for pair in ways:
            for way in pair:
                way.close()  # type: ignore[attr-defined]
    assert sorted(seen) == list(range(len(seen))), "positions without a gap"
    assert len(seen) > 3 * 90 - ranks * micro


def produce(folder: Path, source: SampleSource, worker: int, stop: threading.Event) -> None:
    producer = producer_of(folder, source_of(source.stores[0].path))
    while not stop.is_set():
        if not producer.make_one(worker, 2):
            time.sleep(0.005)


def test_what_training_needs_is_in_the_buffer(source: SampleSource, folder: Path) -> None:
    """Without the data; and only what differs between samples is stored."""
    found = BufferedSource(folder, WITHOUT)
    assert found.order == Order(source.index.sizes, 1)
    assert found.instructions == source.instructions
    assert (found.moments, found.horizon, found.picture_size) == (2, 8, 16)
    np.testing.assert_array_equal(found.state_spread(), source.state_spread())
    producer = producer_of(folder, source)
    assert fill_up(producer) == CHUNKS
    sizes = [path.stat().st_size for path in folder.glob("chunk_*")]
    assert 0 <= sum(sizes) - producer.bytes < 6 * 1000, "but for headers"
    everything = sum(values.nbytes for values in source.empty(CHUNKS * SAMPLES).batch)
    assert producer.bytes < everything / 2, "two of four cameras, few of 128 slots"


def test_episodes_outside_the_limits_are_left_out(path: Path) -> None:
    lengths = [(1, 40), (41, 1000), (5, 70)]
    assert [source_of(path, lengths=both).index.sizes for both in lengths] == [
        (45,),
        (120,),
        (165,),
    ]
    source = source_of(path)
    steps = source.index.steps(np.arange(90))
    assert (steps == np.arange(5, 95)).all()
    with pytest.raises(UsageError, match="no episode of a wanted length") as error:
        source_of(path, lengths=(100, 200))
    assert error.value.problem.code == "RDTL-D044"
    assert error.value.problem.where == f"{path}: 5 to 70 steps; wanted 100 to 200"


def test_a_resume_goes_on_at_the_sample_though_its_chunk_was_used(
    source: SampleSource, folder: Path
) -> None:
    sampler = Sampler(Order(source.index.sizes, 1), 4, 4)
    producer = producer_of(folder, source)
    fill_up(producer)
    first = batches(BufferedSource(folder, WITHOUT), sampler, 0)
    expected = [next(first) for _ in range(14)]
    first.close()  # type: ignore[attr-defined]
    producer.make_one()
    assert not buffer.place(folder, 0).exists(), "used, so removed"
    stop = threading.Event()
    thread = threading.Thread(target=produce, args=(folder, source, 0, stop))
    thread.start()
    again = batches(BufferedSource(folder, WITHOUT), sampler, 0, first=8)
    for batch in expected[2:4]:
        require_equal(next(again), batch)
    again.close()  # type: ignore[attr-defined]
    stop.set()
    thread.join()


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    """One that has said that it runs."""
    process = start(code, *arguments)
    assert process.stdout is not None and process.stdout.readline() == "running\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_killed_producers_leave_whole_chunks_and_go_on(tmp_path: Path) -> None:
    """Killed again and again while they write: no torn chunk, no dead lock, no litter."""
    path = noise.write(noise.demos(LENGTHS, size=128), tmp_path / "set")
    source, folder = source_of(path), tmp_path / "buffer"
    torn = 0
    for _ in range(5):
        process = started(PRODUCE, path, folder)
        while not list(folder.glob(".chunk_*.part")):
            assert process.poll() is None
            for number in buffer.chunks(folder)[4:]:  # so that there is always something to write
                buffer.place(folder, number).unlink()
        kill(process)
        torn += len(list(folder.glob(".chunk_*.part")))
        whole = BufferedSource(folder, WITHOUT, patience_s=0.0)
        for number in buffer.chunks(folder):
            positions = np.arange(number * SAMPLES, (number + 1) * SAMPLES)
            samples = whole.order.at(positions)
            found = whole.fill(samples, whole.empty(SAMPLES), int(positions[0])).batch
            require_equal(found, source.fill(samples, source.empty(SAMPLES), positions[0]).batch)
            if number % 2:
                buffer.place(folder, number).unlink()
        buffer.mark(folder, 0).unlink(missing_ok=True)
    assert torn > 0, "none was killed while it wrote"
    with buffer.producing(folder):
        assert not list(folder.glob(".*"))
        fill_up(producer_of(folder, source))
        assert sorted(buffer.chunks(folder)) == list(range(CHUNKS))


def test_killed_ranks_and_producers_still_show_everything(path: Path, folder: Path) -> None:
    """Rank 0 is killed and resumes from its state; only its last batch may come again."""
    producer = started(PRODUCE, path, folder)
    try:
        shown: dict[int, list[int]] = {0: [], 1: []}
        other = start(CONSUME, folder, 1, 24)
        for lines in (5, 3, None):
            process = start(CONSUME, folder, 0, 24)
            assert process.stdout is not None
            for count, line in enumerate(process.stdout, 1):
                shown[0] += map(int, line.split())
                if count == lines:
                    process.send_signal(signal.SIGKILL)
                    kill(producer)
                    producer = started(PRODUCE, path, folder)
                    break
            shown[0] += [int(word) for word in process.communicate()[0].split()]
            assert process.returncode == (0 if lines is None else -signal.SIGKILL)
        shown[1] += map(int, other.communicate()[0].split())
    finally:
        kill(producer)
    assert sorted(shown[1]) == sorted(set(shown[1])), "never killed, never twice"
    assert set(shown[0]) | set(shown[1]) == set(range(192))
    assert len(shown[0]) - len(set(shown[0])) <= 2 * 4


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system: needs root")
def test_a_full_disk_is_said_and_keeps_whole_chunks(source: SampleSource, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], check=True)
    try:
        producer = producer_of(folder, source)
        producer.publish()
        with pytest.raises(RdtlError, match="disk is full") as error:
            fill_up(producer)
        assert error.value.problem.code == "RDTL-G009"
        assert str(folder / "chunk_") in error.value.problem.where
        there = buffer.chunks(folder)
        assert 0 < len(there) < CHUNKS and not list(folder.glob(".*"))
        for number in there:
            assert len(np.load(buffer.place(folder, number))) == SAMPLES
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_two_producers_and_other_samples_are_refused(
    source: SampleSource, folder: Path, tmp_path: Path
) -> None:
    with (
        buffer.producing(folder),
        pytest.raises(RefusedError, match="being filled already") as error,
        buffer.producing(folder),
    ):
        pass
    assert error.value.problem.code == "RDTL-D044"
    producer_of(folder, source).publish()
    with pytest.raises(RefusedError, match="something else") as error:
        producer_of(folder, source, seed=2).publish()
    assert "order:" in error.value.problem.where and "'seed': 2" in error.value.problem.where
    with pytest.raises(RefusedError) as error:
        producer_of(folder, source_of(source.stores[0].path, lengths=(1, 64))).publish()
    assert "lengths: [32, 64] there, [1, 64] now" in error.value.problem.where
    path = source.stores[0].path
    for declared, differs in (
        ({"gripper_open": 1}, "conventions:"),
        ({"demos": (1, 2)}, "episodes:"),
    ):
        other = SampleSource([open_store(path, **declared)], WITHOUT, 2, 8, (32, 64))
        assert other.index.sizes == source.index.sizes and other.files() == source.files()
        with pytest.raises(RefusedError, match="something else") as error:
            producer_of(folder, other).publish()
        assert differs in error.value.problem.where
        with pytest.raises(RefusedError, match="not the one") as error:
            BufferedSource(folder, WITHOUT).require_stands_for(other, order_of(other))
        assert differs.rstrip(":") in error.value.problem.where
    (tmp_path / "link").symlink_to(path)
    for same in (source, source_of(tmp_path / "link")):
        BufferedSource(folder, WITHOUT).require_stands_for(same, order_of(same))
    with pytest.raises(UsageError, match="two chunks"):
        Producer(folder, source, Order(source.index.sizes, 1), 1, 16)


def test_data_that_change_are_noticed(tmp_path: Path) -> None:
    path, folder = noise.write(noise.demos(LENGTHS), tmp_path / "set"), tmp_path / "buffer"
    producer = producer_of(folder, source_of(path))
    producer.publish()
    os.utime(next(path.glob("*.hdf5")), ns=(1, 1))
    with pytest.raises(RdtlError) as error:
        producer.make_one()
    assert error.value.problem.code == "RDTL-D028"
    with pytest.raises(RefusedError, match="something else") as error:
        producer_of(folder, source_of(path)).publish()
    assert error.value.problem.where.startswith(f"{folder}: files:")


def test_another_buffer_or_order_is_refused(source: SampleSource, folder: Path) -> None:
    with pytest.raises(RdtlError, match="no buffer") as error:
        BufferedSource(folder.parent, WITHOUT)
    assert error.value.problem.code == "RDTL-D014"
    with pytest.raises(RefusedError, match="not the one") as error:
        BufferedSource(folder, CONTRACTS["libero-eef6d"])
    assert error.value.problem.where == f"{folder}: contract libero-velocity, not libero-eef6d"
    fill_up(producer_of(folder, source))
    other = Sampler(Order(source.index.sizes, 2), 4, 4)
    with pytest.raises(RefusedError, match="not the one") as error:
        next(batches(BufferedSource(folder, WITHOUT), other, 0))
    assert error.value.problem.where == f"{folder}: another order of samples at position 0"
    found = BufferedSource(folder, WITHOUT)
    (folder / buffer.PLAN).unlink()
    producer_of(folder, source, seed=3).publish()
    with pytest.raises(RefusedError, match="not the one"):
        Loader(found, Sampler(found.order, 4, 4))
    too_large = BufferedSource(folder, WITHOUT, ranks=5)
    assert len(too_large.empty(16).batch.samples) == 16
    with pytest.raises(UsageError, match="too small"):
        too_large.empty(17)


def test_waiting_in_vain_and_damaged_chunks_have_their_errors(
    source: SampleSource, folder: Path
) -> None:
    waiting = BufferedSource(folder, WITHOUT, patience_s=0.2)
    with pytest.raises(RdtlError, match="no producer") as error:
        next(batches(waiting, Sampler(waiting.order, 4, 4), 0))
    assert error.value.problem.code == "RDTL-D045"
    assert str(buffer.place(folder, 0)) in error.value.problem.where
    patient = BufferedSource(folder, WITHOUT)
    began = time.monotonic()
    with Loader(patient, Sampler(patient.order, 4, 4)) as loader:
        loader._coming.append(loader._pool.submit(loader._fill, 0, loader._free.popleft()))
        time.sleep(0.2)
    assert time.monotonic() - began < 2, "a loader that ends waits for no chunk"
    fill_up(producer_of(folder, source))
    chunk = buffer.place(folder, 0)
    data = chunk.read_bytes()
    rows = np.load(chunk)
    for damaged in (data[:50], data[:-1], b"", b"\x89HDF" * 100):
        chunk.write_bytes(damaged)
        require_damaged(folder, chunk)
    np.save(chunk, rows[:-1])
    require_damaged(folder, chunk)


def require_damaged(folder: Path, chunk: Path) -> None:
    source = BufferedSource(folder, WITHOUT)
    with pytest.raises(RdtlError, match="cannot be read") as error:
        source.fill(np.arange(4), source.empty(4))
    assert error.value.problem.code == "RDTL-D062"
    assert str(chunk) in error.value.problem.where


def test_marks_of_ranks_that_are_gone_hold_nothing_back(source: SampleSource, folder: Path) -> None:
    producer = producer_of(folder, source)
    fill_up(producer)
    for ranks in (2, 1):
        sources = [BufferedSource(folder, WITHOUT, rank, ranks) for rank in range(ranks)]
        for each in sources:
            each.fill(each.order.at(np.arange(4) + 16), each.empty(4), 16)
    assert buffer.marks(folder) == {0: 1}
