"""What ends a training that goes wrong, and records that never hold it up."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from jobs import dataset
from launcher.core.job import Job
from launcher.core.runs import RunDir
from rdt.data import statistics
from rdt.training.data import Data
from rdt.training.meter import Meter
from rdt.training.signs import SLOW_LINES, Signs
from rdt.training.tracking import Tracker
from tests.rdt import synthetic
from tests.training import ranks

ALONE = {"micro_batch": 4, "ranks_per_node": 1}


def prepared(run: Path, **train: object) -> dict[str, Any]:
    config = synthetic.write_plan(run, changes={"train": {"log_every": 1, **train}})
    synthetic.write_parts(run / "data/parts", 3)
    dataset.body(Job.from_environment(str(run)))
    return config


@pytest.mark.slow
def test_a_rank_that_hangs_is_named_with_its_place(tmp_path: Path) -> None:
    prepared(tmp_path, steps=12, stall_minutes=0.15)  # a healthy step may take seconds, too
    assert ranks.start(2, "tests.training.hanging", tmp_path).wait(timeout=300) != 0
    ended = time.time()
    error = json.loads((tmp_path / "error.json").read_text())
    assert error["code"] == "RDTL-T025"
    assert "after step 3" in error["what"]
    assert "rank 1" in error["where"] and "hanging.py" in error["where"]
    log = (tmp_path / "log").read_text()
    assert "Current thread" in log and "in hang" in log
    hung = (tmp_path / "checkpoints/metrics.jsonl").stat().st_mtime  # step 3 was the last
    assert ended - hung < 45, "less than the grace of children that hear nothing"


def test_the_batch_of_a_loss_that_is_no_number_is_kept(tmp_path: Path) -> None:
    config = prepared(tmp_path, steps=40, learning_rate=1e30, warmup_steps=0, **ALONE)
    assert ranks.start(1, "jobs.train", tmp_path).wait(timeout=300) == 1
    error = json.loads((tmp_path / "error.json").read_text())
    assert error["code"] == "RDTL-T018"
    kept = json.loads((tmp_path / "checkpoints/not_finite.json").read_text())
    assert len(kept["loss_by_rank"]) == 1 and kept["loss_by_rank"][0] in ("nan", "inf")
    described = statistics.read(tmp_path / "data/statistics.json")
    batches = Data(RunDir(tmp_path), config, described, 0, 1).training()
    assert kept["samples"] == batches.describe(kept["step"] - 1)
    assert {sample["episode"] for sample in kept["samples"]} <= {0, 1, 2}
    assert all(0 <= sample["row"] < 24 for sample in kept["samples"])
    assert kept["samples"][0]["set"].endswith("_demo.hdf5")


@pytest.mark.parametrize("zero_stage", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_gradient_that_is_no_number_ends_it_before_a_checkpoint(
    tmp_path: Path, zero_stage: int
) -> None:
    prepared(tmp_path, steps=12, checkpoint_every=2, zero_stage=zero_stage, **ALONE)
    assert ranks.start(1, "tests.training.overflowing", tmp_path).wait(timeout=300) == 1
    error = json.loads((tmp_path / "error.json").read_text())
    assert error["code"] == "RDTL-T018" and "gradient norm" in error["what"]
    assert "step 4" in error["what"]
    assert json.loads((tmp_path / "checkpoints/not_finite.json").read_text())["step"] == 4
    assert [path.name for path in (tmp_path / "checkpoints").glob("step_*")] == ["step_000002"]


@pytest.mark.slow
def test_ranks_that_part_later_are_refused_before_a_checkpoint(tmp_path: Path) -> None:
    # With ZeRO each step hands all weights out again, which mends what is changed here.
    prepared(tmp_path, steps=12, checkpoint_every=3, effective_batch=4, zero_stage=0)
    assert ranks.start(2, "tests.training.parting", tmp_path).wait(timeout=120) != 0
    error = json.loads((tmp_path / "error.json").read_text())
    assert (error["code"], error["what"][-6:]) == ("RDTL-T016", "step 6")
    assert [path.name for path in (tmp_path / "checkpoints").glob("step_*")] == ["step_000003"]


def test_waiting_for_data_is_told_from_computing() -> None:
    import torch

    began, waited, worked = time.monotonic(), [], []
    meter = Meter(torch.device("cpu"), samples=8)

    def slow() -> Any:
        for number in range(3):
            asked = time.monotonic()
            time.sleep(0.1)
            waited.append(time.monotonic() - asked)
            yield number

    for _ in meter.batches(slow()):
        asked = time.monotonic()
        time.sleep(0.05)
        worked.append(time.monotonic() - asked)
    meter.step()
    found = meter.read()
    took = time.monotonic() - began  # what a busy machine takes in between is either or none
    assert sum(waited) / took <= found["train/data_wait"] + 0.01 <= 1.02 - sum(worked) / took
    assert 8 / took <= found["train/samples_per_second"] <= 8 / (sum(waited) + sum(worked))
    assert found["system/utilisation"] < 0.5, "it slept"
    assert meter.read()["train/samples_per_second"] == 0


@pytest.mark.parametrize(("slow", "told"), [(0.04, 1), (0.0, 0)])
def test_data_that_come_too_slowly_are_told_once(slow: float, told: int) -> None:
    """RDTL-T024: real times of a loader that sleeps (RDTL-D012), and of one that does not."""
    import torch

    meter, signs, said = Meter(torch.device("cpu"), samples=8), Signs(fresh=False), []

    def loader() -> Any:
        while True:
            if slow:  # a sleep of 0 gives the processor away, too
                time.sleep(slow)
            yield 0

    batches = meter.batches(loader())
    for step in range(10):
        next(batches)
        time.sleep(0.02)  # computing
        meter.step()
        said.append(signs.look({"train/loss": 1.0, **meter.read()}, step, None))
    assert [line[:18] for lines in said for line in lines] == ["warning RDTL-T024:"] * told
    assert not any(said[:SLOW_LINES]), "the first line is that of the start"


@pytest.mark.parametrize("shares", [[0.9, 0.05] * 5, [0.9] * 3, [0.09] * 9])
def test_some_waiting_is_not_worth_a_word(shares: list[float]) -> None:
    signs = Signs(fresh=False)
    for step, share in enumerate(shares):
        assert not signs.look({"train/loss": 1.0, "train/data_wait": share}, step, None)


@pytest.mark.parametrize(
    ("rate", "fresh", "told"), [(1e-9, True, 1), (1e-2, True, 0), (1e-9, False, 0)]
)
def test_a_loss_that_does_not_fall_is_told_once(rate: float, fresh: bool, told: int) -> None:
    """RDTL-T019: a rate at which nothing is learned, a good one, and weights that are good."""
    import torch

    from tests.training import tiny

    net, said = tiny.network(), []
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate)
    signs = Signs(fresh)
    for step in range(1, 121):
        optimizer.zero_grad()
        loss = net(tiny.samples(0))
        loss.backward()
        optimizer.step()
        line = {"train/loss": loss.item(), "train/data_wait": 0.0}
        said += signs.look(line, step, 160)
    assert [line[:18] for line in said] == ["warning RDTL-T019:"] * told


def test_a_loss_that_fell_before_a_restart_is_not_new() -> None:
    signs = Signs(True, [{"train/loss": loss} for loss in [1.0] * 5 + [0.1] * 30])
    flat = {"train/loss": 0.1, "train/data_wait": 0.0}
    assert [said for step in range(50, 60) for said in signs.look(flat, step, 100)] == []


def test_a_gpu_that_does_not_count_its_use_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Here torch's question to NVML fails for want of a driver, there for that of a counter."""
    import torch

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2_000_000_000)
    monkeypatch.setattr("rdt.training.meter.find_spec", lambda name: object())
    meter = Meter(torch.device("cuda"), samples=8)
    for _ in range(2):
        meter.step()
        found = meter.read()
        assert found["system/memory_gb"] == 2
        assert "system/utilisation" not in found
    assert capfd.readouterr().err.count("the use of the GPU is not recorded") == 1


def tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> tuple[Tracker, float]:
    """Hundred lines for Weights & Biases, and how long handing them over took."""
    for name, value in {"WANDB_DIR": tmp_path, "WANDB_CACHE_DIR": tmp_path / "cache"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    config = synthetic.write_plan(tmp_path, changes={"train": {"wandb": mode}})
    RunDir(tmp_path).checkpoints.mkdir()
    began = time.monotonic()
    tracker = Tracker(Job(RunDir(tmp_path), config, "train", 0, 1, 0, 0))
    for step in range(100):
        tracker.log({"step": step, "train/loss": 1 / (1 + step)})
    return tracker, time.monotonic() - began


def test_offline_lines_lie_in_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdt.training.tracking.CLOSE_S", 240.0)
    tracker, took = tracked(tmp_path, monkeypatch, "offline")
    tracker.close()
    assert took < 0.5
    (written,) = (tmp_path / "checkpoints/wandb").glob("offline-run-*/run-*.wandb")
    assert b"train/loss" in written.read_bytes()


def test_a_server_that_does_not_answer_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", 40 * "0")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    monkeypatch.setattr("rdt.training.tracking.CLOSE_S", 1.0)
    tracker, took = tracked(tmp_path, monkeypatch, "online")
    assert took < 0.5
    began = time.monotonic()
    tracker.close()
    assert time.monotonic() - began < 3
    said = capfd.readouterr().err
    assert "RDTL-W006" in said
    assert 40 * "0" not in said
