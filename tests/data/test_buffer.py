"""Chunks made by several producers and used by several consumers, any of them killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from launcher.core.errors import RdtlError, RefusedError, UsageError
from rdt.data import buffer
from rdt.data.batch import Batch
from rdt.data.buffer import Producer, Size
from rdt.data.buffer_reading import Consumer
from rdt.data.order import Order
from rdt.data.sample_source import SampleSource
from rdt.data.store import open_store
from rdt.spec.contract import LIBERO_VELOCITY
from tests.data import noise

LENGTHS = (5, 40, 50, 70)
SMALL = Size(chunks=6, samples=16, consumers=2, shortest=32, longest=64)
PRODUCE = """
import sys
from pathlib import Path
from rdt.data.buffer import Producer
from tests.data import test_buffer as t
worker, workers = int(sys.argv[3]), int(sys.argv[4])
source = t.source_of(Path(sys.argv[1]))
with Producer(Path(sys.argv[2]), source, t.SMALL, 1, worker, workers) as producer:
    print("running", flush=True)
    producer.run(lambda: False)
"""
CONSUME = """
import json, sys
from pathlib import Path
from rdt.data.buffer_reading import Consumer
folder, number, batches = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with Consumer(folder, 4, number) as consumer:
    state = folder.parent / f"state_{number}.json"
    if state.is_file():
        consumer.load_state_dict(json.loads(state.read_text()))
    while consumer.taken < 4 * batches:
        print(*next(consumer).positions.tolist(), flush=True)
        temporary = state.with_suffix(".new")
        temporary.write_text(json.dumps(consumer.state_dict()))
        temporary.replace(state)
"""


def source_of(path: Path) -> SampleSource:
    return SampleSource([open_store(path)], LIBERO_VELOCITY, horizon=8)


@pytest.fixture
def source(tmp_path: Path) -> SampleSource:
    return source_of(noise.write(noise.demos(LENGTHS, size=16), tmp_path / "set"))


def take(folder: Path, number: int, batches: int, state: dict[str, object] | None = None):
    with Consumer(folder, 4, number, patience_s=0.0) as consumer:
        if state:
            consumer.load_state_dict(state)
        return [next(consumer) for _ in range(batches)], consumer.state_dict()


def require_samples(batch: Batch, source: SampleSource) -> None:
    """What the source gives for the positions that the batch says it has."""
    eligible = np.arange(5, 95)
    samples = eligible[Order((90,), 1).at(batch.positions)]
    np.testing.assert_array_equal(batch.samples, samples)
    expected = source.fill(samples, source.empty(len(samples))).batch
    order = np.argsort(samples, kind="stable")
    for name in ("episodes", "actions", "valid", "states", "pictures", "present"):
        np.testing.assert_array_equal(getattr(batch, name)[order], getattr(expected, name))


def test_consumers_see_every_position_once_and_used_chunks_make_room(
    source: SampleSource, tmp_path: Path
) -> None:
    """Two consumers through three buffers' worth: nine epochs' order, in 6 chunks at a time."""
    folder = tmp_path / "buffer"
    seen: list[int] = []
    states: list[dict[str, object] | None] = [None, None]
    with (
        Producer(folder, source, SMALL, 1, 0, 2) as a,
        Producer(folder, source, SMALL, 1, 1, 2) as b,
    ):
        for turn in range(3):
            made = (a.fill_up(), b.fill_up())
            assert sum(made) == 6 and min(made) > 0
            assert len(list(folder.glob("chunk_*"))) == 6
            assert (a.fill_up(), b.fill_up()) == (0, 0), "full"
            for number in range(2):
                batches, states[number] = take(folder, number, 12, states[number])
                for batch in batches:
                    require_samples(batch, source)
                    seen += batch.positions.tolist()
            assert len(set(seen)) == len(seen) == (turn + 1) * 96
    assert sorted(seen) == list(range(288)), "positions without a gap"


def test_episodes_outside_the_limits_are_left_out_and_counted(
    source: SampleSource, tmp_path: Path
) -> None:
    with Producer(tmp_path / "buffer", source, SMALL, 1) as producer:
        producer.fill_up()
    plan = buffer.read_plan(tmp_path / "buffer")
    assert (plan["episodes"], plan["episodes_left_out"]) == (4, 2)
    with pytest.raises(UsageError, match="within the buffer's limits") as error:
        Producer(tmp_path / "other", source, Size(6, 16, 1, 100, 200), 1)
    assert error.value.problem.where == "limits 100 and 200, episodes of 5 to 70 steps"
    size = sum(values.nbytes for values in source.empty(16).batch)
    chunk = next((tmp_path / "buffer").glob("chunk_*"))
    assert buffer.bytes_needed(source, SMALL) == 6 * size
    assert 0 <= chunk.stat().st_size - size < 2000, "but for a header"


def test_a_resume_goes_on_at_the_sample_though_its_chunk_was_used(
    source: SampleSource, tmp_path: Path
) -> None:
    folder = tmp_path / "buffer"
    with Producer(folder, source, SMALL, 1) as producer:
        producer.fill_up()
        _, state = take(folder, 0, 2)
        expected, _ = take(folder, 0, 7, state)
        producer.fill_up()
        assert not buffer.place(folder, 0).exists(), "used, so removed"
        with Consumer(folder, 4, 0, patience_s=5.0) as consumer:
            consumer.load_state_dict(state)
            producer.fill_up()
            found = [next(consumer) for _ in range(7)]
    for a, b in zip(found, expected, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def start(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]


def test_killed_producers_leave_whole_chunks_and_go_on(tmp_path: Path) -> None:
    """Killed again and again while they write: no torn chunk, no dead lock, no litter."""
    path = noise.write(noise.demos(LENGTHS, size=128), tmp_path / "set")
    source, folder = source_of(path), tmp_path / "buffer"
    moments = random.Random(0)
    torn = 0
    for _ in range(8):
        process = start(PRODUCE, path, folder, 0, 1)
        assert process.stdout is not None and process.stdout.readline() == "running\n"
        time.sleep(moments.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        torn += len(list(folder.glob(".chunk_*.part")))
        for chunk in folder.glob("chunk_*"):
            batch = Batch(**load_file(chunk))
            in_order = Batch(*(values[np.argsort(batch.positions)] for values in batch))
            require_samples(in_order, source)
            if moments.random() < 0.7:  # so that the next one has something to write
                chunk.unlink()
    assert torn > 0, "none was killed while it wrote"
    with Producer(folder, source, SMALL, 1) as producer:
        producer.fill_up()
        assert not list(folder.glob(".*"))
        assert len(list(folder.glob("chunk_*"))) == 6


def test_killed_consumers_and_producers_still_show_everything(
    source: SampleSource, tmp_path: Path
) -> None:
    """Consumer 0 is killed and resumes from its state; only its last batch may come again."""
    path, folder = source.stores[0].path, tmp_path / "buffer"
    producers = [start(PRODUCE, path, folder, worker, 2) for worker in range(2)]
    try:
        for process in producers:
            assert process.stdout is not None
            process.stdout.readline()
        shown: dict[int, list[int]] = {0: [], 1: []}
        other = start(CONSUME, folder, 1, 24)
        for lines in (5, 3, None):
            process = start(CONSUME, folder, 0, 24)
            assert process.stdout is not None
            for count, line in enumerate(process.stdout, 1):
                shown[0] += map(int, line.split())
                if count == lines:
                    process.send_signal(signal.SIGKILL)
                    producers[0].send_signal(signal.SIGKILL)
                    producers[0].wait()
                    break
            if lines:
                producers[0] = start(PRODUCE, path, folder, 0, 2)
            rest = process.communicate()[0]
            shown[0] += [int(word) for word in rest.split()]
            assert process.returncode == (0 if lines is None else -signal.SIGKILL)
        shown[1] += map(int, other.communicate()[0].split())
    finally:
        for process in producers:
            process.kill()
            process.communicate()
    assert sorted(shown[1]) == sorted(set(shown[1])), "never killed, never twice"
    assert set(shown[0]) | set(shown[1]) == set(range(192))
    assert len(shown[0]) - len(set(shown[0])) <= 2 * 4


def test_the_same_worker_twice_and_other_samples_are_refused(
    source: SampleSource, tmp_path: Path
) -> None:
    folder = tmp_path / "buffer"
    with Producer(folder, source, SMALL, 1):
        with pytest.raises(RefusedError, match="runs already") as error:
            Producer(folder, source, SMALL, 1)
        assert error.value.problem.code == "RDTL-D044"
    with pytest.raises(RefusedError, match="something else") as error:
        Producer(folder, source, SMALL, 2)
    assert "order:" in error.value.problem.where and "'seed': 2" in error.value.problem.where
    file = next(source.stores[0].path.glob("*.hdf5"))
    os.utime(file, ns=(1, 1))
    with Producer(folder, source, SMALL, 1) as producer, pytest.raises(RdtlError) as changed:
        producer.fill_up()
    assert changed.value.problem.code == "RDTL-D028"
    with pytest.raises(RefusedError, match="something else") as error:
        Producer(folder, source_of(source.stores[0].path), SMALL, 1)
    assert error.value.problem.where.startswith(f"{folder}: files:")


def test_consumers_that_do_not_fit_or_wait_in_vain(source: SampleSource, tmp_path: Path) -> None:
    folder = tmp_path / "buffer"
    with pytest.raises(RdtlError, match="no buffer"):
        Consumer(folder, 4)
    with Producer(folder, source, SMALL, 1):
        pass
    for size, number in ((5, 0), (4, 2), (4, -1)):
        with pytest.raises(UsageError, match="does not fit"):
            Consumer(folder, size, number)
    with Consumer(folder, 4, 0, patience_s=0.3) as consumer:
        with pytest.raises(RdtlError, match="no producer") as error:
            next(consumer)
        assert error.value.problem.code == "RDTL-D045"
        assert str(buffer.place(folder, 0)) in error.value.problem.where
    state = {"taken": 4, "order": {**Order((90,), 2).identity}}
    with Consumer(folder, 4, 0) as consumer, pytest.raises(UsageError, match="this state"):
        consumer.load_state_dict(json.loads(json.dumps(state)))
    with pytest.raises(UsageError, match="for each consumer"):
        Size(chunks=3, consumers=4)
