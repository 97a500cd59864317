"""Workers of one task share a policy server: the same records, whatever happens to the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from jobs import evaluate, watch, workers
from jobs.worker import Place
from launcher import diagnose, presets, sites
from launcher.core import children, files
from launcher.core.errors import EXIT_REQUEUE, RdtlError, UsageError
from launcher.core.job import Job
from launcher.core.runs import RunDir
from launcher.presets import JOB_ENVIRONMENT
from launcher.schema import Evaluate, Sweep
from rdt.spec.record import EpisodeKey
from tests.evaluation.test_exactness import ROOT, content, new_run, whole_lines
from tests.evaluation.test_plan import run_config
from tests.rdt import small_policy
from tests.report import runs

SHORT = {"max_steps": 16, "camera_size": 64}
GRID: dict[str, Any] = {
    "policies": ["rdt"],
    "suites": {"libero_object": [0]},
    "init_states": (0, 4),
    "execution_horizon": 4,
    "rows": 2,
}


class Keys(list[EpisodeKey]):
    """Says how often somebody goes through all of them."""

    passes = 0

    def __iter__(self) -> Iterator[EpisodeKey]:
        self.passes += 1
        return super().__iter__()


def test_its_lines_are_found_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys(EpisodeKey("rdt", "libero_object", 0, 0, trial) for trial in range(50))
    lines = [SimpleNamespace(key=key, policy="rdt", status="success", error=None) for key in keys]
    monkeypatch.setattr(evaluate.records, "read_lines", lambda folder: lines)
    keys.passes = 0
    evaluate.require_results(Job(RunDir(tmp_path), {}, "evaluate", 0, 1, attempt=0, node=0), keys)
    assert keys.passes == 1


def test_results_of_other_tasks_count_for_the_policy(tmp_path: Path) -> None:
    """A task may have as little as one episode of a policy, or of a sweep's cell."""
    run = runs.new_run(tmp_path, policies=["rdt", "zero"], init_states=(30, 32))
    own, other = runs.record(run, "rdt", 30, "env_error"), runs.record(run, "rdt", 31, "fail")
    job = Job(run, {}, "evaluate", 0, 2, attempt=0, node=0)
    runs.add(run, [own, runs.record(run, "zero", 31, "fail")])
    with pytest.raises(RdtlError, match="no episode of rdt ended without"):
        evaluate.require_results(job, [own.key])
    runs.add(run, [other], "part-a1-s1-node1-12.jsonl")
    evaluate.require_results(job, [own.key])


@pytest.mark.parametrize("line", ["{not json", '{"policy": "rdt"}\r', "[]", "\0\0\0"])
def test_a_line_that_is_no_record_is_named_by_file_and_line(tmp_path: Path, line: str) -> None:
    """As in the report: an evaluation that goes on, and its videos, read the same files."""
    run = runs.new_run(tmp_path, policies=["rdt"], init_states=(30, 32))
    own = runs.record(run, "rdt", 30, "fail")
    part = runs.add(run, [own])
    with part.open("a", newline="") as handle:
        handle.write(f"\n{line}\n")
    with pytest.raises(RdtlError, match="RDTL-E075") as caught:
        evaluate.require_results(Job(run, {}, "evaluate", 0, 1, attempt=0, node=0), [own.key])
    assert f"{part}:3: " in caught.value.problem.where


def start(run: RunDir, module: str) -> subprocess.Popen[bytes]:
    """The only task of a run, as jobs.node starts it."""
    place = {"RDTL_STAGE": "evaluate", "RDTL_ERROR_FILE": str(run.root / "error.json")}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, str(run.root)],
        env={**os.environ, **JOB_ENVIRONMENT, **place, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    )


def children_of(pid: int) -> dict[int, str]:
    """Command lines of the children of a process."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child): Path(f"/proc/{child}/cmdline").read_text() for child in found}


def servers_of(pid: int) -> list[int]:
    return [child for child, line in children_of(pid).items() if "jobs.serve" in line]


def wait_for(true: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.sim
@pytest.mark.slow
def test_a_shared_policy_gives_the_records_of_one_in_the_process(tmp_path: Path) -> None:
    """A death of the server does not show in them: each worker has another episode to run."""
    grid = {**GRID, "checkpoint": str(small_policy.trained_folder(tmp_path / "trained"))}
    alone = new_run(tmp_path / "alone", SHORT, grid)
    assert start(alone, "jobs.evaluate").wait(300) == 0

    shared = new_run(tmp_path / "shared", SHORT, {**grid, "workers": 2})
    task = start(shared, "jobs.workers")
    wait_for(lambda: whole_lines(shared))
    first = servers_of(task.pid)
    os.kill(first[0], signal.SIGKILL)
    assert task.wait(300) == 0

    log = (shared.root / "logs" / "evaluate" / "attempt_0" / "0.n0.server0.log").read_text()
    assert log.count("listening on") == 2
    assert len(content(alone)) == 4
    assert content(shared) == content(alone)  # the protocol's fingerprint, with the rows, too
    assert files.read_json(shared.progress("evaluate", 0))["done"] == 4


@pytest.mark.sim
@pytest.mark.slow
def test_a_worker_that_aborts_costs_no_other_episode(tmp_path: Path) -> None:
    """As a renderer's driver does it: no exception, no word. The same command goes on."""
    run = new_run(tmp_path / "run", SHORT, {**GRID, "policies": ["zero"], "workers": 2})
    task = start(run, "jobs.workers")
    wait_for(lambda: whole_lines(run))
    first, _ = [child for child, line in children_of(task.pid).items() if "jobs.worker" in line]
    os.kill(first, signal.SIGABRT)
    assert task.wait(300) == 1
    error = files.read_json(run.root / "error.json")
    assert error["code"] == "RDTL-E068" and "code -6" in error["what"]
    there = whole_lines(run)
    job = Job(run, files.read_json(run.plan)["config"], "evaluate", 0, 1, attempt=0, node=0)
    assert set(Place(1, 2, "", None).share(job)) <= there.keys()
    assert len(there) < 4
    assert start(run, "jobs.workers").wait(300) == 0
    assert sorted(whole_lines(run).values()) == [1] * 4
    assert there.keys() < whole_lines(run).keys()


@pytest.fixture
def own_signals() -> Iterator[None]:
    """The handlers of this process, which a crew replaces, come back."""
    before = {number: signal.getsignal(number) for number in children.FORWARDED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
@pytest.mark.parametrize(
    ("second", "code"),
    [("", None), (f"sys.exit({EXIT_REQUEUE})", EXIT_REQUEUE)],
    ids=["ends", "is told to save"],
)
def test_a_worker_that_fails_is_told_when_the_others_have_ended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    second: str,
    code: int | None,
) -> None:
    """A task that Slurm preempts meanwhile is started again, with what both left."""
    programs = iter(
        ["sys.exit(3)", f"time.sleep(1); open({str(tmp_path / 'out')!r}, 'w'); {second}"]
    )

    def started(module: str, job: Job, told: dict[str, str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", f"import sys, time; {next(programs)}"])

    monkeypatch.setattr(workers, "_started", started)
    run = new_run(tmp_path / "run", SHORT, {**GRID, "policies": ["zero"], "workers": 2})
    job = Job(run, files.read_json(run.plan)["config"], "evaluate", 0, 1, attempt=0, node=0)
    with workers._crew(job, tmp_path, [None, None]) as crew:
        if code is None:
            with pytest.raises(RdtlError, match="worker 0 of this task ended with code 3"):
                crew.wait([])
        else:
            assert crew.wait([]) == code
    assert (tmp_path / "out").exists()
    assert "worker 0 failed, the others go on: RDTL-E068" in capsys.readouterr().err
    assert files.read_json(run.progress("evaluate", 0))["text"] == "workers that failed: 1"


HANGING = """
import ctypes, sys
from rdt.sim.libero import Simulator
from jobs import evaluate
step = Simulator.step
def stuck(self, *rest, **more):  # like a driver that waits for ever, with Python's lock
    return ctypes.PyDLL(None).sleep(600) if self.at else step(self, *rest, **more)
def reset(self, number, at=Simulator.reset):
    self.at = 0
    at(self, number)
    self.at = number  # the first initial state goes well
Simulator.step, Simulator.reset = stuck, reset
evaluate.run_job(evaluate.body)
"""


@pytest.mark.sim
@pytest.mark.slow
def test_a_simulator_that_never_comes_back_ends_its_process(tmp_path: Path) -> None:
    """Nobody would wait for it, and nothing that was finished is lost. The same command goes on."""
    run = new_run(tmp_path / "run", SHORT, {**GRID, "policies": ["zero"], "episode_minutes": 0.25})
    log, place = tmp_path / "log", {**os.environ, **JOB_ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    with log.open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-P", "-c", HANGING, run.root],
            env={**place, "RDTL_STAGE": "evaluate"},
            stdout=subprocess.DEVNULL,
            stderr=out,
            timeout=200,
            check=False,
        )
    assert done.returncode == -watch.DEADLY
    assert [found.code for found in diagnose.diagnose(log)] == ["RDTL-E033"]
    assert ", line 7 in stuck" in log.read_text()
    there = whole_lines(run)
    assert sum(there.values()) == 2  # its own, too
    assert start(run, "jobs.evaluate").wait(300) == 0
    assert sorted(whole_lines(run).values()) == [1, 1, 1, 2]
    assert {line["status"] for line in content(run)} == {"fail"}


@pytest.mark.sim
@pytest.mark.slow
def test_a_killed_task_leaves_no_server_and_no_worker(tmp_path: Path) -> None:
    grid = {**GRID, "checkpoint": str(small_policy.trained_folder(tmp_path / "trained"))}
    task = start(new_run(tmp_path / "run", SHORT, {**grid, "workers": 2}), "jobs.workers")
    wait_for(lambda: len(children_of(task.pid)) == 3)
    crew = list(children_of(task.pid))
    task.kill()
    task.wait()
    wait_for(lambda: not any(map(alive, crew)), 10)


@pytest.mark.slow
def test_a_policy_that_cannot_be_read_is_the_error_of_the_task(tmp_path: Path) -> None:
    """The server finds it out, since the card alone looks well."""
    folder = small_policy.trained_folder(tmp_path / "trained")
    weights = next(folder.glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    run = new_run(tmp_path / "run", SHORT, {**GRID, "checkpoint": str(folder), "workers": 2})
    task = start(run, "jobs.workers")
    code = task.wait(120)
    error = files.read_json(run.root / "error.json")
    assert code == error["exit_status"] != 0
    assert error["code"].startswith("RDTL-T")


def test_a_task_asks_for_its_workers_and_its_servers(tmp_path: Path) -> None:
    site = sites.Site(kind="local")

    def stage(**evaluate: Any) -> Any:
        config = run_config(checkpoint="/weights", policies=["rdt"], **evaluate)
        return presets._evaluate_stages(config, site, RunDir(tmp_path), [])[0]

    one, four, gpus = stage(), stage(workers=4), stage(workers=8, gpus=2, batching="free")
    assert (one.argv[3], one.cpus, one.gpus_per_node) == ("jobs.evaluate", 1, 0)
    assert (four.argv[3], four.cpus, four.gpus_per_node) == ("jobs.workers", 5, 0)
    assert (gpus.cpus, gpus.gpus_per_node) == (10, 2)
    assert one.memory_mb < four.memory_mb < 4 * one.memory_mb + 1000
    assert gpus.memory_mb > 2 * four.memory_mb


def test_what_cannot_share_a_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="for each GPU"):
        Evaluate(gpus=2)
    with pytest.raises(ValidationError, match="several workers"):
        Evaluate(batching="free")
    with pytest.raises(ValidationError, match="not evaluated"):
        Evaluate(policies=["zero"], gpus=1)
    config = run_config(checkpoint="/weights", policies=["rdt"], workers=2)
    swept = config.model_copy(update={"sweep": Sweep()})
    with pytest.raises(UsageError, match="share no policy"):
        presets._evaluate_stages(swept, sites.Site(kind="local"), RunDir(tmp_path), [])
