"""When a task lets the scheduler start it again, and when it stops doing so.

Slurm starts a job again after a requeue (ours, at the end of its time or at a
preemption), after a preemption without warning, and after the death of a node.
None of these is the job's fault, so they are free, as long as the job gets
anywhere and its time is not used up.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass

from launcher.core.errors import EXIT_LOST, EXIT_REQUEUE, RdtlError
from launcher.core.runs import RunDir, read_progress

IDLE_ROUNDS = 3
"""Rounds in a row that may end without progress: one may be preempted while it starts."""
CAP_S = 14 * 24 * 3600.0
"""From the first start of an attempt on; later rounds are refused."""
WORKED_S = 600.0
"""How long a program not of ours ran at least that saved its state and not only started."""
SETTLE_S = 10.0
"""How long a node that failed by itself may take to say so after others have lost it."""
ASK_AGAIN_S = 5.0
ASK_FOR_S = 10 * 60.0
"""A controller that is busy or just restarts answers by then; a time limit may end us before."""
KILL_WAIT_S = 15 * 60.0
"""How long a task that has saved its state waits to be ended by the scheduler."""


@dataclass(frozen=True)
class Round:
    """One start of a task: when, how far the task was then, and whether it got further for sure.

    ``saved``: a program whose progress nobody sees worked a while and said that it had saved.
    """

    at: float
    progress: float
    saved: bool = False


def restart_count() -> int:
    """How often Slurm has started this job again; 0 outside Slurm."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def begin(run: RunDir, stage: str, index: int, attempt: int, restart: int) -> None:
    """Record this round; RdtlError RDTL-S011 when another round would be one too many."""
    now = Round(time.time(), _progress(run, stage, index))
    earlier = rounds(run, stage, index, attempt)
    run.ledger.publish(
        f"started.{stage}.i{index}.a{attempt}.r{restart}",
        progress=now.progress,
        job=os.environ.get("SLURM_JOB_ID"),
        host=os.uname().nodename,
    )
    refusal = judge([*earlier, now], stage)
    if restart and refusal:
        raise refusal


def rounds(run: RunDir, stage: str, index: int, attempt: int) -> list[Round]:
    """Earlier rounds of this attempt, oldest first."""
    names = run.ledger.names(f"started.{stage}.i{index}.a{attempt}.r")
    names.sort(key=lambda name: int(name.rsplit(".r", 1)[1]))
    found = []
    for name in names:
        if event := run.ledger.read(name):
            end = run.ledger.read(name.replace("started", "saved", 1))
            saved = end is not None and end["at"] - event["at"] >= WORKED_S
            found.append(Round(event["at"], event["progress"], saved))
    return found


def note_saved(run: RunDir, stage: str, index: int, attempt: int) -> None:
    """Record that a program not of ours ended this round by saying that it has saved."""
    run.ledger.publish(f"saved.{stage}.i{index}.a{attempt}.r{restart_count()}")


def judge(found: list[Round], stage: str) -> RdtlError | None:
    """The reason to stop after these rounds (the last one begins now), or None. Pure.

    A round that ended while it was starting may have told less than was done before it.
    """
    last = found[-IDLE_ROUNDS - 1 :]
    furthest = max(one.progress for one in last)
    idle = furthest <= last[0].progress and not any(one.saved for one in last)
    if len(last) > IDLE_ROUNDS and idle:
        return RdtlError(
            "RDTL-S011",
            f"stage {stage} was started {len(found)} times and gets nowhere",
            where=f"no more than {furthest:g} finished at the last {len(last)} starts",
            why="it would be started again for ever",
            fix="give it a longer time limit, or look at its logs for what takes so long to start",
        )
    if found[-1].at - found[0].at > CAP_S:
        return RdtlError(
            "RDTL-S011",
            f"stage {stage} goes on since {CAP_S / 86400:.0f} days",
            where=f"started {len(found)} times",
            fix="if that is meant, run the same command again: it continues from its checkpoint",
        )
    return None


def _progress(run: RunDir, stage: str, index: int) -> float:
    found = [entry["done"] for entry in read_progress(run, stage) if entry["index"] == index]
    return float(found[0]) if found else 0.0


def leave_to_the_scheduler(
    run: RunDir, stage: str, index: int, attempt: int, node: int, nodes: int, code: int
) -> None:
    """Let Slurm start the job again; returns when it has failed after all.

    USR2 (85): the state is saved and node 0 asks for a restart. TERM (86): it is saved and
    Slurm knows what it wants; a requeue would bring a cancelled job back to life. Lost ranks
    (87): of the nodes that are left one asks.
    """
    asks = code == EXIT_REQUEUE and node == 0
    if asks:
        wait_for_all(run, stage, index, attempt, nodes)
    if code == EXIT_LOST:
        asking = who_asks(run, stage, index, attempt, nodes)
        if asking is None:
            return
        asks = asking == node
    if asks and not requeue():
        return
    wait_for_the_end()


def wait_for_all(run: RunDir, stage: str, index: int, attempt: int, nodes: int) -> None:
    """Wait until all nodes have saved."""
    deadline = time.monotonic() + 60
    while len(run.ledger.exit_codes(stage, index, attempt)) < nodes:
        if time.monotonic() > deadline:
            break  # a node died meanwhile: what the others saved is whole all the same
        time.sleep(0.2)


def who_asks(run: RunDir, stage: str, index: int, attempt: int, nodes: int) -> int | None:
    """After ranks were lost: the node that has to ask for a restart; None when nobody may.

    That is the first of those that are left. None: a node says that it failed by itself, or
    this round was given up and a newer one has begun.
    """
    deadline = time.monotonic() + SETTLE_S
    while True:
        codes = run.ledger.exit_codes(stage, index, attempt)
        if any(code != EXIT_LOST for code in codes.values()):
            return None
        if len(codes) == nodes or time.monotonic() > deadline:
            return min(codes, default=None)
        time.sleep(0.2)


def requeue() -> bool:
    """Ask Slurm to start this job again, and again while it cannot be asked; whether it will."""
    command = ["scontrol", "requeue", job_id(dict(os.environ))]
    until = time.monotonic() + ASK_FOR_S
    while True:
        try:
            if subprocess.run(command, check=False, timeout=60).returncode == 0:
                return True
        except (OSError, subprocess.TimeoutExpired) as error:
            print(error, file=sys.stderr, flush=True)
        if time.monotonic() > until:
            return False
        time.sleep(ASK_AGAIN_S)


def is_preempted() -> bool:
    """Whether Slurm says that it has announced the end of this job, to make room for another one.

    Until it ends it, after a grace time, the job counts as running: if its tasks returned now, it
    would have failed and not be started again. A job that was cancelled or requeued is ended
    at once; what its tasks return makes no difference.
    """
    command = ["scontrol", "show", "job", job_id(dict(os.environ))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False  # nobody knows; what the program's end says stands
    said = dict(word.partition("=")[::2] for word in done.stdout.split())
    announced = said.get("PreemptTime", "None") not in ("None", "N/A")
    return announced and said.get("JobState") == "RUNNING"


def job_id(environment: dict[str, str]) -> str:
    """What scontrol calls this job: a number, or ARRAY_INDEX for the task of an array."""
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment["SLURM_JOB_ID"]


def wait_for_the_end() -> None:
    """Stay until the scheduler kills this task.

    A task that returns after TERM counts as completed or failed, and a preempted
    job that does so is not started again by Slurm: its work would be lost.
    """
    time.sleep(KILL_WAIT_S)
