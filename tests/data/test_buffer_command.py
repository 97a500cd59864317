"""``rdtl data buffer``: sizes said first, refusals, and processes that end together."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import buffer as job
from launcher import heavy
from launcher.cli import data_buffer
from launcher.core.errors import RdtlError, RefusedError
from launcher.schema import RunConfig
from rdt.data import buffer
from rdt.data.buffered import BufferedSource
from rdt.data.sample_source import SampleSource
from rdt.data.store import open_store
from rdt.spec.contract import CONTRACTS
from tests.cli.run_rdtl import rdtl
from tests.data import noise, writers

CONTRACT = CONTRACTS["libero-eef6d"]
OPTIONS = ["--chunks", "3", "--samples", "20", "--contract", CONTRACT.name, "--horizon", "8"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rlds") / "noise_no_noops/1.0.0"
    episodes = [writers.rlds_episode(demo) for demo in noise.demos((5, 40, 70), size=16)]
    return writers.write_rlds(episodes, folder)


def request(path: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "paths": [str(path)],
        "folder": str(folder),
        "chunks": 3,
        "samples": 20,
        "lengths": [32, 64],
        "seed": 1,
        "weights": [1.0],
        "moments": 2,
        "horizon": 8,
        "contract": CONTRACT.name,
        "tasks": [],
        "demos": [],
        "gripper_open": -1,
        "alignment": None,
        "fill_up": True,
        "processes": 2,
    } | changes


def test_a_buffer_of_encoded_pictures_is_filled(path: Path, tmp_path: Path) -> None:
    command = ["data", "buffer", str(path), "--out", "b", *OPTIONS, "--fill-up"]
    done = rdtl(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("full: 3 chunks made")
    size, episodes = done.stderr.splitlines()[:2]
    told = json.loads(rdtl(*command, "--json", cwd=tmp_path).stdout)
    assert (told["made"], told["samples_of_an_epoch"]) == (0, 110)
    assert size.startswith(f"3 chunks of 20 samples take {told['bytes'] / 1e9:.2f} GB, ")
    assert episodes.startswith("an epoch has 110 samples; of 3 episodes 1 are too short and 0")
    source = SampleSource([open_store(path)], CONTRACT, horizon=8, lengths=(32, 2048))
    found = BufferedSource(tmp_path / "b", CONTRACT, patience_s=0.0)
    samples = found.order.at(np.arange(40))
    expected = source.fill(samples, source.empty(40)).batch
    for name, values in found.fill(samples, found.empty(40)).batch._asdict().items():
        np.testing.assert_array_equal(values, getattr(expected, name), err_msg=name)


def test_its_seed_is_that_of_a_training_where_nobody_says_one() -> None:
    """Another order was refused by the training, after tens of gigabytes were written."""
    said = inspect.signature(data_buffer.buffer).parameters["seed"].default
    assert said == RunConfig(name="one").seed


def test_what_cannot_be_made_is_refused_before_it_is_begun(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RefusedError, match="no room") as error:
        job.produce(request(path, tmp_path / "b", chunks=10**10))
    assert error.value.problem.code == "RDTL-D060"
    plan = json.loads(capsys.readouterr().out.splitlines()[0])["plan"]
    assert plan["bytes"] > plan["bytes_free"] > 0
    assert f"{plan['bytes'] / 1e9:.2f} GB in all" in error.value.problem.where
    assert not (tmp_path / "b" / buffer.PLAN).exists()
    done = rdtl(
        "data", "buffer", str(path), "--out", "b", "--weight", "1", "--weight", "2", cwd=tmp_path
    )
    assert done.returncode == 2 and "RDTL-D063" in done.stderr


def test_a_program_that_cannot_start_is_said() -> None:
    with pytest.raises(RdtlError, match="gave no answer") as error:
        list(heavy.stream("jobs.nothing", "{}", environment={}))
    assert error.value.problem.code == "RDTL-U098"
    assert "No module named jobs.nothing" in error.value.problem.where


def running(path: Path, folder: Path) -> subprocess.Popen[bytes]:
    """The command, filling ``folder`` for ever, with its first chunk there."""
    argv = [sys.executable, "-P", "-m", "launcher", "data", "buffer", str(path), "--out"]
    process = subprocess.Popen(
        [*argv, str(folder), *OPTIONS], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    wait_for(lambda: bool(buffer.chunks(folder)))
    return process


def wait_for(condition: Any) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 30
        time.sleep(0.02)


def children(parent: int) -> list[int]:
    """Processes whose parent is ``parent``."""
    text = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False
    ).stdout
    return [int(word) for word in text.split()]


def alive(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_killed_command_leaves_nobody_behind(path: Path, tmp_path: Path) -> None:
    """Nor a lock: another one can begin at once."""
    process = running(path, tmp_path / "b")
    (program,) = children(process.pid)
    everybody = [program, *children(program)]
    assert len(everybody) >= 2
    with (
        pytest.raises(RefusedError, match="being filled already"),
        buffer.producing(tmp_path / "b"),
    ):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not any(map(alive, everybody)))
    with buffer.producing(tmp_path / "b"):
        assert not list((tmp_path / "b").glob(".*"))


def test_ctrl_c_ends_it_with_a_word(path: Path, tmp_path: Path) -> None:
    process = running(path, tmp_path / "b")
    (program,) = children(process.pid)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 130 and "interrupted; what is finished is kept" in said
    wait_for(lambda: not alive(program))


def test_a_killed_process_ends_the_command_with_a_word(path: Path, tmp_path: Path) -> None:
    process = running(path, tmp_path / "b")
    (program,) = children(process.pid)
    os.kill(children(program)[0], signal.SIGKILL)
    said = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 1 and "RDTL-D061" in said
    assert not alive(program)


def test_what_fails_in_a_process_is_said_as_it_is(path: Path, tmp_path: Path) -> None:
    """A set that is changed while the buffer is filled, in the process that notices."""
    process = running(path, tmp_path / "b")
    wait_for(lambda: len(buffer.chunks(tmp_path / "b")) == 3)
    shard = next(path.glob("*.tfrecord*"))
    then = shard.stat()
    os.utime(shard, ns=(1, then.st_mtime_ns + 1))
    buffer.place(tmp_path / "b", 1).unlink()
    said = process.communicate(timeout=30)[1].decode()
    os.utime(shard, ns=(1, then.st_mtime_ns))
    assert process.returncode == 1 and "RDTL-D028" in said and str(shard) in said
    with pytest.raises(RdtlError, match="no producer"):
        source = BufferedSource(tmp_path / "b", CONTRACT, patience_s=0.0)
        source.fill(source.order.at(np.arange(20, 24)), source.empty(4), 20)
