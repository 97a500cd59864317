"""When a task may be started once more: a function of its rounds, and of the ledger."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from jobs import requeue, workers
from jobs.node import NodeTask, StageFailedError
from jobs.policy_server import PolicyServer
from jobs.requeue import CAP_S, IDLE_ROUNDS, Round, job_id, judge
from launcher.core import children, files
from launcher.core.errors import EXIT_LOST, EXIT_REQUEUE, RdtlError
from launcher.core.job import Job
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("progress", "goes_on"),
    [
        ([0], True),
        ([0, 0], True),
        ([0] * IDLE_ROUNDS, True),
        ([0] * (IDLE_ROUNDS + 1), False),
        ([0, 0, 0, 5], True),
        ([5, 9, 9, 9, 9], False),
        ([0, 100, 200, 0], True),
        ([200, 0, 0, 0], False),
        ([1, 2, 3, 4, 5, 6, 7, 8], True),
    ],
)
def test_rounds_are_free_while_they_get_anywhere(progress: list[float], goes_on: bool) -> None:
    refusal = judge([Round(float(i), p) for i, p in enumerate(progress)], "train")
    assert (refusal is None) == goes_on
    assert refusal is None or refusal.problem.code == "RDTL-S011"


def test_a_start_that_tells_nothing_yet_undoes_no_progress(tmp_path: Path) -> None:
    """Workers wait for their server when the node is taken away; two rounds had got somewhere."""
    run = RunDir(tmp_path)
    job = Job(run, {}, "evaluate", index=0, count=1, attempt=0, node=0)
    for restart, done in enumerate((100, 200, 0, 300)):
        requeue.begin(run, "evaluate", 0, attempt=0, restart=restart)
        workers._warm(job, cast(PolicyServer, Loads()))
        if done:
            job.progress(done, 400, "episodes")
    assert run.ledger.current_restart("evaluate", 0, 0) == 3, "no round was ended"


class Loads:
    """A server that is warm at the second look."""

    def __init__(self) -> None:
        self.looks = iter([None, "ws://127.0.0.1:1"])

    def uri(self) -> str | None:
        return next(self.looks)


@pytest.mark.parametrize(
    ("ends", "own_code", "worked_s", "goes_on"),
    [
        ("exit 85", False, requeue.WORKED_S + 1, True),
        ("exit 86", False, requeue.WORKED_S + 1, True),
        ("exit 85", False, 1.0, False),
        ("exit 85", True, requeue.WORKED_S + 1, False),
        ("kill -USR2 $$", False, requeue.WORKED_S + 1, False),
    ],
)
def test_a_program_of_others_that_worked_and_saved_got_somewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str, own_code: bool, worked_s: float,
    goes_on: bool,
) -> None:  # fmt: skip
    """It tells no progress; what starts only, or dies of the signal, gets nowhere all the same."""
    run = RunDir(tmp_path)
    warned = "trap : USR2; kill -USR2 $PPID; sleep 0.1; trap - USR2; "  # by Slurm, and it hears it
    stage = Stage("run", ("sh", "-c", warned + ends), own_code=own_code)
    files.write_json(run.plan, Plan("p", "slurm", (stage,), {}).to_dict())
    monkeypatch.setattr(requeue, "leave_to_the_scheduler", lambda *_: None)
    clock = time.time()
    monkeypatch.setattr(time, "time", lambda: clock)
    refusals = []
    for restart in range(IDLE_ROUNDS + 1):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
        begin = requeue.begin

        def began(*name: Any, begin: Callable[..., None] = begin) -> None:
            nonlocal clock
            begin(*name)
            clock += worked_s

        with monkeypatch.context() as patched:
            patched.setattr(requeue, "begin", began)
            with pytest.raises((StageFailedError, RdtlError)) as error:
                NodeTask(str(tmp_path), "run", 0, 1)()
        refusals.append(isinstance(error.value, RdtlError))
    assert refusals == [False] * IDLE_ROUNDS + [not goes_on]


def test_an_attempt_does_not_go_on_for_ever() -> None:
    assert judge([Round(0.0, 0), Round(CAP_S + 1, 10)], "train") is not None


def test_an_array_task_is_requeued_alone() -> None:
    assert job_id({"SLURM_JOB_ID": "8"}) == "8"
    array = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    assert job_id(array) == "7_2"


def test_a_round_that_was_given_up_is_fenced_off(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.ledger.publish("claim.train.a1", indices=[0])
    for restart in (0, 1):
        run.ledger.publish(f"started.train.i0.a1.r{restart}", progress=0)
    old, new = (
        Job(run, {}, "train", index=0, count=1, attempt=1, node=0, restart=restart)
        for restart in (0, 1)
    )
    assert old.fenced()
    assert not new.fenced()
    assert (old.round, new.round) == ("a1", "a1r1")
    run.ledger.publish("finished.train.i0.n0.a1.r0", exit_code=85)
    assert run.ledger.exit_codes("train", 0, 1) == {}, "the round before says nothing of this one"
    run.ledger.publish("finished.train.i0.n0.a1.r1", exit_code=0)
    assert run.ledger.exit_codes("train", 0, 1) == {0: 0}


LOST, CRASHED = EXIT_LOST, 1


@pytest.mark.parametrize(
    ("codes", "asks"),
    [
        ({0: LOST}, 0),
        ({1: LOST, 2: LOST}, 1),
        ({0: LOST, 1: LOST, 2: LOST}, 0),
        ({0: LOST, 2: CRASHED}, None),
        ({0: LOST, 1: 86}, None),
        ({}, None),
    ],
)
def test_of_what_is_left_after_the_death_of_a_node_one_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codes: dict[int, int], asks: int | None
) -> None:
    """Of three nodes; who failed by itself is no reason to start all again."""
    monkeypatch.setattr(requeue, "SETTLE_S", 0.0)
    run = RunDir(tmp_path)
    for node, code in codes.items():
        run.ledger.publish(f"finished.train.i0.n{node}.a1.r0", exit_code=code)
    assert requeue.who_asks(run, "train", 0, 1, 3) == asks
    run.ledger.publish("started.train.i0.a1.r1", progress=0)
    assert requeue.who_asks(run, "train", 0, 1, 3) is None, "a newer round runs already"


def test_a_rank_that_only_lost_another_one_is_not_the_cause(tmp_path: Path) -> None:
    crashes = "trap '' TERM; touch ready; sleep 0.4; exit 1"
    both = [subprocess.Popen(["sh", "-c", text], cwd=tmp_path)
            for text in ("until test -e ready; do sleep 0.01; done; exit 87", crashes)]  # fmt: skip
    assert children.wait_for(both) == CRASHED
    ends = [subprocess.Popen(["sh", "-c", text]) for text in ("exit 87", "exec sleep 60")]
    assert children.wait_for(ends) == LOST, "the other one was ended by us"


def test_what_hears_no_term_is_killed_after_a_grace_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a rank in a kernel of NCCL; that we killed it is not the cause of anything."""
    monkeypatch.setattr(children, "GRACE_S", 0.3)
    deaf = "trap '' TERM; touch ready; while :; do sleep 0.05; done"
    lost = "until test -e ready; do sleep 0.01; done; exit 87"
    both = [subprocess.Popen(["sh", "-c", text], cwd=tmp_path) for text in (deaf, lost)]
    began = time.monotonic()
    assert children.wait_for(both) == LOST
    assert both[0].returncode == -signal.SIGKILL
    assert 0.3 < time.monotonic() - began < 10


def test_a_kill_by_somebody_else_is_a_cause(tmp_path: Path) -> None:
    killed = "trap '' TERM; touch ready; sleep 0.4; kill -KILL $$"
    lost = "until test -e ready; do sleep 0.01; done; exit 87"
    both = [subprocess.Popen(["sh", "-c", text], cwd=tmp_path) for text in (lost, killed)]
    assert children.wait_for(both) == 128 + signal.SIGKILL


NODE = """
import sys
from jobs import node, requeue
requeue.wait_for_the_end = lambda: print("waits")
try:
    node.NodeTask(sys.argv[1], "run", 0, 1)()
except node.StageFailedError as error:
    sys.exit(error.exit_code)
"""
ANSWER = (
    "JobId=8 JobState={} Reason=None\n   PreemptEligibleTime=2026-11-21T19:43:19 PreemptTime={}"
)


@pytest.mark.parametrize(
    ("answer", "ends", "told", "code", "waits"),
    [
        (ANSWER.format("RUNNING", "2026-11-21T19:43:21"), "kill -TERM $$", "", 86, True),
        (ANSWER.format("RUNNING", "2026-11-21T19:43:21"), "exit 1", "", 86, True),
        (ANSWER.format("RUNNING", "2026-11-21T19:43:21"), "exit 1", "RDTL-G009", 1, False),
        (ANSWER.format("RUNNING", "None"), "exit 1", "", 1, False),
        (ANSWER.format("COMPLETING", "None"), "kill -TERM $$", "", 143, False),
        ("", "kill -TERM $$", "", 143, False),
    ],
)
def test_a_program_that_ends_by_term_waits_only_where_slurm_starts_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, ends: str, told: str,
    code: int, waits: bool,
) -> None:  # fmt: skip
    """The answers are those of a real scontrol after a preemption, a requeue and a scancel."""
    program = f"trap '{ends}' TERM; touch began; while :; do sleep 0.02; done"
    if ends.startswith("kill"):
        program = "touch began; exec sleep 60"
    run = RunDir(tmp_path)
    stage = Stage("run", ("sh", "-c", program), own_code=False, working_directory=str(tmp_path))
    files.write_json(run.plan, Plan("p", "slurm", (stage,), {}).to_dict())
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "scontrol").write_text(f"#!/bin/sh\ntest \"$*\" = 'show job 8' && echo '{answer}'\n")
    (bin_ / "scontrol").chmod(0o755)
    if told:
        error = {"code": told, "what": "full", "exit_status": 1}
        path = run.error("run", 1, 0, 0, 0)
        path.parent.mkdir(parents=True)
        files.write_json(path, error)
    environment = {"SLURM_JOB_ID": "8", "PATH": f"{bin_}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    task = subprocess.Popen(
        [sys.executable, "-c", NODE, str(tmp_path)], env=environment, stdout=subprocess.PIPE
    )
    deadline = time.monotonic() + 20
    while not (tmp_path / "began").exists():
        assert time.monotonic() < deadline and task.poll() is None
        time.sleep(0.02)
    task.send_signal(signal.SIGTERM)
    said, _ = task.communicate(timeout=20)
    assert task.returncode == code
    assert said == (b"waits\n" if waits else b"")
    assert run.ledger.exit_codes("run", 0, 1) == {0: code}


@pytest.mark.parametrize(("busy", "patience", "goes_on"), [(2, 60.0, True), (9, 0.0, False)])
def test_a_controller_that_is_busy_is_asked_again_for_the_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: int, patience: float, goes_on: bool
) -> None:
    """Its first word is no, as under load; a job that has saved waits only if it is requeued."""
    waits: list[str] = []
    monkeypatch.setattr(requeue, "wait_for_the_end", lambda: waits.append("waits"))
    monkeypatch.setattr(requeue, "ASK_AGAIN_S", 0.01)
    monkeypatch.setattr(requeue, "ASK_FOR_S", patience)
    program = tmp_path / "scontrol"
    program.write_text(
        '#!/bin/sh\nset -eu\ntest "$*" = "requeue 7_2"\n'
        f'printf x >> {tmp_path}/asked\n[ "$(wc -c < {tmp_path}/asked)" -gt {busy} ] || '
        "{ echo 'slurm_requeue error: Socket timed out on send/recv operation' >&2; exit 1; }\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name, value in (("JOB_ID", "9"), ("ARRAY_JOB_ID", "7"), ("ARRAY_TASK_ID", "2")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    run = RunDir(tmp_path)
    run.ledger.publish("finished.train.i2.n0.a1.r0", exit_code=EXIT_REQUEUE)
    requeue.leave_to_the_scheduler(run, "train", 2, 1, 0, 1, EXIT_REQUEUE)
    assert (tmp_path / "asked").read_text() == "x" * (busy + 1 if goes_on else 1)
    assert waits == (["waits"] if goes_on else [])


def test_without_an_answer_of_slurm_nothing_is_preempted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not requeue.is_preempted()


def test_what_says_most_about_the_cause_comes_first(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    error = {"code": "RDTL-S059"}
    run.ledger.publish("finished.train.i0.n0.a1.r0", exit_code=LOST, error=error)
    run.ledger.publish("finished.train.i0.n1.a1.r0", exit_code=CRASHED, error=None)
    assert (run.ledger.failure("train", 0, 1) or {})["exit_code"] == CRASHED
    run.ledger.publish("finished.train.i0.n2.a1.r0", exit_code=1, error={"code": "RDTL-T018"})
    assert (run.ledger.failure("train", 0, 1) or {})["error"]["code"] == "RDTL-T018"
