"""Every quirk of submitit that is worked around, one test each: theirs first, then ours."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import submitit
from submitit.core import utils
from submitit.core.job_environment import SignalHandler
from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJobEnvironment

from jobs import slurm_task
from jobs.node import NodeTask, run_task
from launcher.core import files
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.submit import adapter
from launcher.submit.adapter import NotSentError, PartExecutor
from launcher.submit.clients import Clients, Reply
from launcher.submit.queue import Queue
from launcher.submit.script import Request


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is searched first for programs; srun is there, sbatch is the test's."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    program(folder, "srun", "exit 0")
    return folder


def program(folder: Path, name: str, body: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def executor(tmp_path: Path, **changes: Any) -> PartExecutor:
    request = Request(
        **{
            "title": "a test",
            "job_name": "rdtl-x-a-a1",
            "folder": tmp_path / "run" / "slurm" / "a" / "attempt_1",
            "code": tmp_path / "run" / "code",
            "python": "python",
            "nodes": 1,
            "cpus": 4,
            "memory_mb": 100,
            "minutes": 5,
            "array": 10,
            **changes,
        }
    )
    return PartExecutor(request, Clients(dict(os.environ), print))


def send(tmp_path: Path) -> str:
    return executor(tmp_path).send(RunDir(tmp_path / "run"), "a", 1, tuple(range(10)))


def theirs(tmp_path: Path) -> submitit.AutoExecutor:
    return submitit.AutoExecutor(folder=tmp_path / "theirs", cluster="slurm")


REFUSES = "echo 'sbatch: error: Batch job submission failed: Invalid job array' >&2; exit 1"


def test_a_hanging_sbatch_is_stopped_submitit_1659(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(programs, "sbatch", "exec sleep 30")
    monkeypatch.setattr(adapter, "SBATCH_TIMEOUT_S", 0.3)
    began = time.monotonic()
    with pytest.raises(NotSentError) as caught:
        send(tmp_path)
    assert time.monotonic() - began < 10
    assert caught.value.reply.silent, "nobody knows whether it went in"
    assert (tmp_path / "run/slurm/a/attempt_1/tasks.json").exists(), "if it did, it finds its tasks"


def test_a_refusal_leaves_no_files_submitit_1624(tmp_path: Path, programs: Path) -> None:
    program(programs, "sbatch", REFUSES)
    with pytest.raises(utils.FailedJobError):
        theirs(tmp_path).map_array(abs, range(10))
    assert len(list((tmp_path / "theirs").glob("*.pkl"))) == 10
    with pytest.raises(NotSentError) as caught:
        send(tmp_path)
    assert not caught.value.reply.silent
    assert not (tmp_path / "run/slurm/a/attempt_1").exists()


LISTS = 'ls "$(dirname "$1")" > {folder}/there; echo Submitted batch job 7'


def test_tasks_are_there_before_sbatch_and_are_one_file(tmp_path: Path, programs: Path) -> None:
    """submitit moves its pickles when sbatch has returned: killed before, the job finds none."""
    program(programs, "sbatch", LISTS.format(folder=tmp_path))
    theirs(tmp_path).map_array(abs, range(10))
    assert "submitted.pkl" not in (tmp_path / "there").read_text()
    assert send(tmp_path) == "7"
    assert (tmp_path / "there").read_text().split() == ["submission.sh", "tasks.json"]
    listed = files.read_json(tmp_path / "run/slurm/a/attempt_1/tasks.json")
    assert listed["indices"] == list(range(10))


def test_no_pause_between_submissions(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(programs, "sbatch", "echo Submitted batch job 7")
    assert theirs(tmp_path)._executor._throttling == 0.2
    monkeypatch.setattr(PartExecutor, "_throttle", lambda self: pytest.fail("it pauses"))
    assert send(tmp_path) == "7"


def script_of(tmp_path: Path) -> str:
    send(tmp_path)
    return (tmp_path / "run/slurm/a/attempt_1/submission.sh").read_text()


def test_neither_wckey_nor_a_hidden_throttle(tmp_path: Path, programs: Path) -> None:
    program(programs, "sbatch", "echo Submitted batch job 7")
    other = theirs(tmp_path)
    other.map_array(abs, range(300))
    (text,) = [path.read_text() for path in (tmp_path / "theirs").glob("*_submission.sh")]
    assert "--wckey=submitit" in text and "0-299%256" in text
    ours = script_of(tmp_path)
    assert "--wckey" not in ours and "#SBATCH --array=0-9\n" in ours


def test_srun_is_told_the_cores(tmp_path: Path, programs: Path) -> None:
    """Slurm 22.05 stopped handing --cpus-per-task of sbatch to srun."""
    program(programs, "sbatch", "echo Submitted batch job 7")
    assert "srun --unbuffered --kill-on-bad-exit=1 --cpus-per-task=4" in script_of(tmp_path)


@pytest.fixture
def on_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a part whose only array task runs here; its stage ends well."""
    run = RunDir(tmp_path / "run")
    stage = Stage("a", ("true",), array=1, minutes=5, own_code=False)
    files.write_json(run.plan, Plan("x", "here", (stage,), {}).to_dict())
    folder = run.root / "slurm" / "a" / "attempt_1"
    listed = {"run_dir": str(run.root), "stage": "a", "attempt": 1, "indices": [0]}
    files.write_json(folder / "tasks.json", listed)
    run.ledger.publish("claim.a.a1", indices=[0], part_size=None)
    place = {"JOB_ID": "8", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "0", "PROCID": "0"}
    for name, value in {**place, "NODEID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SUBMITIT_FOLDER", str(folder))
    return folder


def test_ten_minutes_are_no_time_out_submitit_1656(on_a_node: Path) -> None:
    paths = utils.JobPaths(on_a_node, "7_0", 0)
    delayed = utils.DelayedSubmission(run_task, NodeTask(str(on_a_node), "a", 0, 1))
    delayed.set_timeout(5, 3)
    assert SignalHandler(SlurmJobEnvironment(), paths, delayed).has_timed_out()
    slurm_task.main(on_a_node)
    ours = utils.DelayedSubmission.load(paths.submitted_pickle)
    assert not SignalHandler(SlurmJobEnvironment(), paths, ours).has_timed_out()


def test_what_a_kill_left_does_not_stop_the_next_start(on_a_node: Path) -> None:
    left = on_a_node / "7_0_0_result.pkl.save_tmp"
    left.write_bytes(b"half")
    with pytest.raises(AssertionError), utils.temporary_save_path(on_a_node / "7_0_0_result.pkl"):
        pass
    slurm_task.main(on_a_node)
    assert (on_a_node / "7_0_0_result.pkl").exists() and not left.exists()
    run = RunDir(on_a_node.parent.parent.parent)
    assert run.ledger.exit_codes("a", 0, 1) == {0: 0}


class Said(Clients):
    """squeue that lists the given lines."""

    def __init__(self, lines: str) -> None:
        super().__init__({}, print)
        self._lines = lines

    def run(self, argv: list[str], timeout_s: float = 30) -> Reply:
        return Reply(0, self._lines, "")


def watcher(state: str) -> SlurmInfoWatcher:
    found = SlurmInfoWatcher(delay_s=600)
    found._registered.add("7")
    found._info_dict.update(found.read_info(f"JobID|State|NodeList\n7|{state}|n1\n"))
    return found


def test_node_fail_is_not_final_while_slurm_starts_it_again() -> None:
    """submitit reads sacct's last word; Slurm has requeued the job meanwhile."""
    assert watcher("NODE_FAIL").is_done("7", mode="cache")
    queue = Queue(Said("7|N/A|PENDING|BeginTime|rdtl-x-a-a1\n"), "rdtl-x-")
    assert queue.alive(["7"]) == {"7"}


def test_a_cancelled_job_ends_without_accounting() -> None:
    """submitit stays at UNKNOWN, which counts as unfinished, for ever."""
    assert not SlurmInfoWatcher().is_done("7", mode="cache")
    assert Queue(Said(""), "rdtl-x-").alive(["7"]) == set()


def test_a_state_is_not_kept_for_ten_minutes_submitit_1759(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """submitit waits half of a job's age, up to 600 s, with sacct for every array of its own."""
    found = watcher("RUNNING")
    updates: list[float] = []
    monkeypatch.setattr(found, "update", lambda: updates.append(time.time()))
    found._start_time, found._last_status_check = time.time() - 7200, time.time() - 500
    assert found.get_state("7") == "RUNNING" and updates == []
    clients = Said("")
    now = 0.0
    queue = Queue(clients, "rdtl-x-", lambda: now)
    queue.alive(["7"])
    now = 31.0
    queue.alive(["7"])
    assert queue._seen_at == 31
