"""Training as a user has it: two ranks, killed again and again, and the same weights in the end."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from jobs import dataset
from launcher.core.job import Job
from launcher.core.runs import RunDir
from rdt.policy import loading
from rdt.training import export
from tests import inside
from tests.rdt import synthetic

pytestmark = pytest.mark.train

ROOT = Path(__file__).parents[2]
STEPS, EVERY = 24, 8
ALONE = {"micro_batch": 4, "ranks_per_node": 1}


def start(run: Path, ranks: int = 2, attempt: int = 0) -> subprocess.Popen[bytes]:
    launch = ["--standalone", "--nnodes", "1", "--nproc-per-node", str(ranks)]
    job = inside.python(
        ["-P", "-m", "torch.distributed.run", *launch, "-m", "jobs.train", str(run)],
        run,
        {
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
            "RDTL_ATTEMPT": str(attempt),
            "RDTL_ERROR_FILE": str(run / "error.json"),
        },
    )
    return subprocess.Popen(
        job.argv,
        cwd=run,
        env=job.environment,
        stdout=(run / "log").open("ab"),
        stderr=subprocess.STDOUT,
    )


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for everybody, and wait until they are gone."""
    ranks = children(process.pid)
    for pid in (process.pid, *ranks):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in ranks):
        time.sleep(0.01)


def kill_when(process: subprocess.Popen[bytes], moment: Callable[[], bool], run: Path) -> None:
    deadline = time.monotonic() + 120
    while not moment():
        assert process.poll() is None, (run / "log").read_text()[-3000:]
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.0005)
    kill(process)


def finish(process: subprocess.Popen[bytes], run: Path) -> None:
    assert process.wait(timeout=180) == 0, (run / "log").read_text()[-3000:]


def prepared(run: Path, **train: object) -> Path:
    settings = {"steps": STEPS, "checkpoint_every": EVERY, "log_every": 1, **train}
    synthetic.write_plan(run, **settings)
    synthetic.write_parts(run / "data/parts", 3)
    dataset.body(Job.from_environment(str(run)))
    return run


def lines(run: Path) -> list[dict[str, float]]:
    path = run / "checkpoints/metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def curve(run: Path) -> list[dict[str, float]]:
    """The record without the columns that wall-clock time decides."""
    kept = ("step", "train/loss", "train/lr", "train/gradient_norm")
    return [{key: line[key] for key in kept} for line in lines(run)]


@pytest.mark.slow
def test_killed_runs_end_in_the_same_weights(tmp_path: Path) -> None:
    whole = prepared(tmp_path / "whole")
    finish(start(whole), whole)

    run = prepared(tmp_path / "killed")
    checkpoints = run / "checkpoints"
    # Before the first checkpoint.
    kill_when(start(run, attempt=1), lambda: len(lines_safely(run)) >= 3, run)
    assert not list(checkpoints.glob("step_*"))
    # Inside the writing of the first checkpoint.
    kill_when(start(run, attempt=2), lambda: any(checkpoints.glob(".tmp-*-a2/*")), run)
    assert [path.name for path in checkpoints.glob(".tmp-step_*")] == [".tmp-step_000008-a2"]
    assert not list(checkpoints.glob("step_*"))
    # Some steps after a checkpoint.
    kill_when(start(run, attempt=3), lambda: len(lines_safely(run)) >= 2 * EVERY - 2, run)
    assert [path.name for path in checkpoints.glob("step_*")] == ["step_000008"]
    finish(start(run, attempt=4), run)

    for name in ("model.safetensors", "config.json", "card.json"):
        assert (run / "policy" / name).read_bytes() == (whole / "policy" / name).read_bytes(), name
    assert curve(run) == curve(whole)
    assert [line["step"] for line in lines(run)] == list(range(1, STEPS + 1))
    seconds = [line["seconds"] for line in lines(run)]
    assert seconds == sorted(seconds)
    assert not list(checkpoints.glob(".tmp-*"))
    # Each checkpoint is a policy that can be evaluated.
    assert sorted(path.name for path in checkpoints.glob("step_*")) == [
        "step_000008",
        "step_000016",
    ]
    assert loading.load(checkpoints / "step_000016", seed=0).card.training.steps == 16

    # Done is done: nothing is trained again.
    before = (run / "policy/model.safetensors").stat().st_mtime_ns
    finish(start(run, attempt=5), run)
    assert (run / "policy/model.safetensors").stat().st_mtime_ns == before


def lines_safely(run: Path) -> list[bytes]:
    path = run / "checkpoints/metrics.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


@pytest.mark.slow
def test_a_time_budget_is_decided_once(tmp_path: Path) -> None:
    run = prepared(tmp_path / "run", minutes=0.02, zero_stage=2)
    finish(start(run), run)
    event = RunDir(run).ledger.read("train.length")
    assert event is not None and event["steps_per_second"] > 0
    card = json.loads((run / "policy/card.json").read_text())
    assert card["training"]["steps"] == event["steps"] == lines(run)[-1]["step"]

    again = prepared(tmp_path / "again", minutes=100.0)
    RunDir(again).ledger.publish("train.length", steps=9, minutes=100.0, steps_per_second=1.0)
    finish(start(again, ranks=2), again)
    assert lines(again)[-1]["step"] == 9


@pytest.mark.slow
def test_a_time_budget_below_the_warm_up_is_refused_and_can_be_mended(tmp_path: Path) -> None:
    """Before anything is kept, on every rank: the rate would end below its peak."""
    run = prepared(tmp_path / "run", minutes=0.02, warmup_steps=5000)
    assert start(run, ranks=2).wait(timeout=120) != 0
    error = json.loads((run / "error.json").read_text())
    assert error["code"] == "RDTL-T062", (run / "log").read_text()[-3000:]
    assert "5000 of" in error["what"]
    assert RunDir(run).ledger.read("train.length") is None
    assert not list((run / "checkpoints").glob("step_*"))

    plan = json.loads((run / "plan.json").read_text())
    plan["config"]["train"]["warmup_steps"] = 4
    (run / "plan.json").write_text(json.dumps(plan))
    finish(start(run, ranks=2), run)
    event = RunDir(run).ledger.read("train.length")
    assert event is not None and event["steps"] == lines(run)[-1]["step"]
    # The warm-up lasts until the length is known: 25 of these few steps are said to be many.
    assert [finding["code"] for finding in event["findings"]] == ["RDTL-T005"]
    assert "warning RDTL-T005: the warm-up is" in (run / "log").read_text()


def test_a_killed_export_leaves_no_policy_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As large as the weights, and nothing else would ever remove it."""
    synthetic.write_plan(tmp_path)

    def fill(folder: Path, weights: object, steps: int, ends: bool = True) -> None:
        (folder / "model.safetensors").write_bytes(b"weights")
        if not ends:
            os.kill(os.getpid(), signal.SIGKILL)

    def publish(attempt: int, ends: bool) -> None:
        monkeypatch.setenv("RDTL_ATTEMPT", str(attempt))
        job = Job.from_environment(str(tmp_path))
        export.publish_policy(job, partial(fill, ends=ends), {}, 1)

    for attempt in (1, 2):
        killed = multiprocessing.get_context("fork").Process(target=publish, args=(attempt, False))
        killed.start()
        killed.join()
        assert killed.exitcode == -signal.SIGKILL
        assert len(list(tmp_path.glob(".policy-*"))) == 1
    publish(3, ends=True)
    assert (tmp_path / "policy/model.safetensors").read_bytes() == b"weights"
    assert not list(tmp_path.glob(".policy-*"))


@pytest.mark.slow
def test_an_exploding_loss_is_an_error_with_its_step(tmp_path: Path) -> None:
    run = prepared(tmp_path / "run", learning_rate=1e30, warmup_steps=0, **ALONE)
    assert start(run, ranks=1).wait(timeout=400) != 0
    error = json.loads((run / "error.json").read_text())
    assert error["code"] == "RDTL-T018"
    assert not (run / "policy").exists()


@pytest.mark.slow
def test_a_broken_checkpoint_stops_the_run(tmp_path: Path) -> None:
    """And a newer attempt stops an older one before it publishes."""
    run = prepared(tmp_path / "run", checkpoint_every=16, **ALONE)  # there is one before the end
    RunDir(run).ledger.publish("claim.manual.a7", indices=[0])
    assert start(run, ranks=1, attempt=6).wait(timeout=120) != 0
    assert json.loads((run / "error.json").read_text())["code"] == "RDTL-S034"
    assert not list((run / "checkpoints").glob("step_*"))

    process = start(run, ranks=1, attempt=7)
    kill_when(process, lambda: (run / "checkpoints/step_000016").exists(), run)
    newest = sorted((run / "checkpoints").glob("step_*"))[-1]
    victim = next(newest.rglob("*optim_states.pt"))
    victim.write_bytes(victim.read_bytes()[:-100])
    assert start(run, ranks=1, attempt=7).wait(timeout=120) != 0
    error = json.loads((run / "error.json").read_text())
    assert error["code"] == "RDTL-T013"
    assert victim.name in error["where"]
    assert not (run / "policy").exists()
