"""Faults really made while two nodes train in the image: what goes on, and what it costs.

One run that nobody disturbs, and copies of it that each meet their faults.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.requeue import IDLE_ROUNDS
from launcher.core import retention
from launcher.core.plan import read
from launcher.core.runs import RunDir
from tests.cluster import daemons, processes
from tests.integration.slurm_runs import ends_badly, ends_well
from tests.integration.slurm_training import (
    EVERY,
    RANKS,
    ROOT,
    STEPS,
    Machine,
    Training,
    curve,
    lines,
    made,
    whole,
)
from tests.road.small_demo import digest
from tests.training import disks
from tests.training.test_extensions import BUILDER

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.train,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts Slurm in network namespaces: needs root"),
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="Slurm is not installed"),
    pytest.mark.usefixtures("sif"),
]
PATIENCE_S = 400.0


@pytest.fixture(scope="module")
def machine(cluster: Path) -> Machine:
    return Machine(cluster)


@pytest.fixture(scope="module")
def undisturbed(cluster: Path) -> RunDir:
    run = made(cluster)
    assert [line["step"] for line in lines(run)] == list(range(1, STEPS + 1))
    return run


@pytest.fixture
def training(machine: Machine, undisturbed: RunDir, tmp_path: Path) -> Iterator[Training]:
    """A run that has not begun to train; in the end nothing of it runs."""
    with ended(Training.like(undisturbed, machine, tmp_path)) as found:
        yield found


@contextmanager
def ended(training: Training) -> Iterator[Training]:
    """Afterwards nothing of it runs."""
    try:
        yield training
    finally:
        machine = training.machine
        for name in training.run.ledger.names("submitted.train"):
            machine.slurm("scancel", "--full", *training.event(name)["ids"])
        for node in machine.cluster.node_names:
            processes.kill(machine.processes(node, str(training.run.root)))


def ended_as(training: Training, undisturbed: RunDir) -> None:
    """The same numbers and weights bit for bit, and no checkpoint that is not whole."""
    assert curve(training.run) == curve(undisturbed)
    weights = "policy/model.safetensors"
    assert digest(training.run.root / weights) == digest(undisturbed.root / weights)
    assert whole(training.run)[-1] == whole(undisturbed)[-1]
    assert not list(training.run.checkpoints.glob(".tmp-*"))


def codes(training: Training, restart: int = 0) -> list[int]:
    """Exit codes of both nodes in one round of the first attempt."""
    names = [f"finished.train.i0.n{node}.a1.r{restart}" for node in (0, 1)]
    return [training.event(name)["exit_code"] for name in names]


@pytest.mark.slow
def test_a_node_killed_in_mid_step(training: Training, undisturbed: RunDir) -> None:
    launcher = training.start()
    training.hold(8)
    while there := training.machine.processes("n2"):  # slurmstepd and all below it
        processes.kill(there)
    training.go_on()
    training.again(restart=1, at_once=False)
    ends_well(launcher, PATIENCE_S)
    ended_as(training, undisturbed)
    assert 0 < training.repeated() <= EVERY
    assert training.event("finished.train.i0.n0.a1.r0")["error"]["code"] == "RDTL-S059"
    assert training.attempt == 1, "the launcher submitted it a second time"


@pytest.mark.slow
def test_one_run_is_preempted_cut_crashes_and_is_haunted(
    training: Training, undisturbed: RunDir
) -> None:
    """One after the other, for each start costs seconds."""
    crashes_where_told(training)
    launcher = training.start(partition="low")
    preempt(training)
    lost = cut_the_newest(training)
    (training.run.root / "exits").touch()
    training.again(restart=1)
    assert "exit code 1" in ends_badly(launcher, PATIENCE_S)
    assert "warning RDTL-T011" in training.log()
    assert whole(training.run)
    launcher = training.start()
    ghosts = become_ghosts(training, attempt=2)
    assert training.repeated() <= lost + EVERY
    assert "RDTL-S036" in ends_badly(launcher, PATIENCE_S)
    assert training.ranks() == ghosts
    launcher = training.start()
    training.started(2 * RANKS)
    training.go_on()
    ends_well(launcher, PATIENCE_S)
    training.wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ghosts))
    ended_as(training, undisturbed)
    gone = training.event("finished.train.i0.n0.a2.r0")
    # What the scheduler has mounted for a job may go with it: then a rank finds no directory at
    # all before it meets the newer attempt, the others lose it, and none can write why.
    codes_of_ends = ("RDTL-S034", "RDTL-S059")
    assert gone["exit_code"] != 0, "nobody stopped the old attempt"
    assert gone["error"] is None or gone["error"]["code"] in codes_of_ends


def crashes_where_told(training: Training) -> None:
    """Ranks are those of tests.training.exiting from now on."""
    shutil.copy(ROOT / "tests/training/exiting.py", training.run.code / "jobs")

    def change(stage: dict[str, Any]) -> None:
        stage["argv"] = ["jobs.exiting" if w == "jobs.train" else w for w in stage["argv"]]

    training.change(change)


def preempt(training: Training) -> None:
    """A job of a higher partition takes all nodes; Slurm sends TERM alone, later KILL."""
    with training.machine.preemption_by_term(grace_s=20):  # four ranks save on two cores
        training.hold(8)
        high = ["srun", "--partition=high", "--nodes=3", "--exclusive", "--immediate=90"]
        subprocess.run(
            [*high, "true"], env=training.machine.environment, check=True, timeout=120, cwd="/"
        )
    assert codes(training) == [86, 86]
    assert training.repeated() == 0


def cut_the_newest(training: Training) -> int:
    """Shorten a file of the newest checkpoint; how many steps it was ahead of the one before."""
    before, newest = whole(training.run)[-2:]
    assert newest == training.done()
    victim = next(retention.place(training.run.checkpoints, newest).rglob("*optim_states.pt"))
    victim.write_bytes(victim.read_bytes()[:-10])
    return newest - before


def become_ghosts(training: Training, attempt: int) -> list[int]:
    """Kill Slurm's hands on the ranks and give the job up: they live on, and nobody knows."""
    training.wait(lambda: training.run.ledger.names(f"submitted.train.a{attempt}"))
    training.started()
    for node in ("n1", "n2"):  # now: held ranks would get SIGHUP from the kernel with it
        processes.kill(training.machine.processes(node, f"slurmstepd: [{training.id}.0]"))
    ghosts = training.hold(6)
    training.machine.slurm("scancel", training.id)
    return ghosts


def usr2(training: Training) -> None:
    training.machine.slurm("scancel", "--signal=USR2", training.id)


def requeued_by_hand(training: Training) -> None:
    training.machine.slurm("scontrol", "requeue", training.id)


def time_over(training: Training) -> None:
    """Less than 90 s of its time are left: Slurm sends USR2 when it next looks."""
    start = training.machine.slurm("squeue", "-h", "-j", training.id, "-o", "%M")
    minutes = int(start.split(":")[0]) + 2
    training.machine.slurm("scontrol", "update", f"jobid={training.id}", f"TimeLimit={minutes}")
    (rank, *_) = training.ranks()
    training.wait(lambda: not Path(f"/proc/{rank}").exists())  # Slurm woke it, it has saved


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "code"), [(usr2, 85), (time_over, 85), (requeued_by_hand, 86)])
def test_a_warning_or_an_order_costs_no_step(
    training: Training, undisturbed: RunDir, fault: Callable[[Training], None], code: int
) -> None:
    launcher = training.start()
    training.hold(8)
    fault(training)
    training.go_on()
    training.again(restart=1)
    training.machine.slurm("scontrol", "update", f"jobid={training.id}", "TimeLimit=60")
    ends_well(launcher, PATIENCE_S)
    ended_as(training, undisturbed)
    assert codes(training) == [code, code]
    assert training.repeated() == 0


@pytest.mark.slow
def test_a_job_that_gets_nowhere_is_ended(training: Training) -> None:
    launcher = training.start()
    training.wait(lambda: training.run.ledger.names("started.train.i0.a1.r0"))
    for restart in range(IDLE_ROUNDS):
        requeued_by_hand(training)
        training.again(restart + 1)
    said = ends_badly(launcher, PATIENCE_S)
    assert "RDTL-S011" in said and f"started {IDLE_ROUNDS + 1} times" in said


@pytest.mark.slow
def test_the_first_node_dies_whole(training: Training, undisturbed: RunDir) -> None:
    """It has the batch script and the rendezvous, and Slurm learns of its death late."""
    launcher = training.start()
    training.hold(8)
    cluster = training.machine.cluster
    daemons.kill_node(cluster, "n1")
    try:
        training.go_on()
        training.again(restart=1, at_once=False)
        ends_well(launcher, PATIENCE_S)
    finally:
        daemons.restart_node(cluster, "n1")
    ended_as(training, undisturbed)
    assert 0 < training.repeated() <= EVERY
    assert training.event("started.train.i0.a1.r1")["host"] == "n2"


@pytest.mark.slow
def test_a_disk_that_others_fill(training: Training, undisturbed: RunDir) -> None:
    cluster = training.machine.cluster
    with disks.small(training.run.checkpoints, 30_000) as folder:
        for node in cluster.node_names:  # a node sees what was mounted when its slurmd started
            daemons.kill(cluster, f"slurmd-{node}")
            daemons.restart_node(cluster, node)
        launcher = training.start()
        training.wait(lambda: retention.steps(folder) == [EVERY])
        training.hold(EVERY + 1)
        full = folder / "of somebody else"
        full.write_bytes(bytes(shutil.disk_usage(folder).free - 1_000_000))
        training.go_on()
        said = ends_badly(launcher, PATIENCE_S)
        assert "RDTL-G009" in said and f"step {EVERY}" in said
        kept = whole(training.run)  # how many depends on how soon the ranks were held
        assert kept in ([EVERY], [EVERY, 2 * EVERY])
        full.unlink()
        ends_well(training.start(), PATIENCE_S)
        ended_as(training, undisturbed)
        assert training.repeated() < 2 * EVERY, "training went on while the failing one was written"


@pytest.mark.slow
def test_a_lock_of_a_builder_that_was_killed(training: Training, undisturbed: RunDir) -> None:
    builds = training.run.root / "builds"
    (builds / "some_op").mkdir(parents=True)
    spec = pytest.importorskip("torch.utils.file_baton").__file__
    with subprocess.Popen(
        [sys.executable, "-c", BUILDER, spec, str(builds / "some_op/lock")], stdout=subprocess.PIPE
    ) as builder:
        assert builder.stdout is not None and builder.stdout.readline() == b"building\n"
        builder.kill()
    training.change(lambda stage: stage["environment"].update(TORCH_EXTENSIONS_DIR=str(builds)))
    ends_well(training.start(), PATIENCE_S)
    said = [path.read_text() for path in training.run.root.glob("logs/train/attempt_1/0.n?.log")]
    assert "RDTL-T026" in "".join(said) and not (builds / "some_op/lock").exists()
    ended_as(training, undisturbed)


@pytest.mark.slow
def test_two_nodes_then_one_then_two(machine: Machine, undisturbed: RunDir, cluster: Path) -> None:
    """4, 2 and 4 ranks by giving the command again: the losses stay within a thousandth."""
    words = ["train", "tiny.yaml", "--site", "minislurm", "--runtime", "apptainer", "--name"]
    run = RunDir(cluster / "runs" / "moves-minislurm")
    with ended(Training(machine, run)) as training:
        for nodes, until in ((2, 6), (1, 11), (2, STEPS)):
            argv = [*words, "moves", "--set", f"train.nodes={nodes}"]
            launcher = subprocess.Popen(
                [sys.executable, "-P", "-m", "launcher", *argv], cwd=cluster, text=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
            if until < STEPS:
                training.wait(lambda: training.run.ledger.names("submitted.train"))
                training.hold(until, count=2 * nodes)
                machine.slurm("scancel", training.id)
                assert "RDTL-S036" in ends_badly(launcher, PATIENCE_S)
        ends_well(launcher, PATIENCE_S)
        nodes_of = [name.rpartition(".a")[2] for name in run.ledger.names("finished.train.i0.n")]
        assert sorted(nodes_of) == ["1.r0", "1.r0", "2.r0", "3.r0", "3.r0"]
        assert training.repeated() == 0
    losses, whole_way = (
        {line["step"]: line["train/loss"] for line in lines(run)} for run in (run, undisturbed)
    )
    assert losses == pytest.approx(whole_way, rel=1e-3)
    assert losses != whole_way, "it never was on another number of ranks"


@pytest.mark.slow
def test_an_image_that_one_node_does_not_see(training: Training) -> None:
    """Another file system lies over its folder there; the other node would wait for ever."""
    cluster = training.machine.cluster
    slurmd = processes.recorded(cluster.records)["slurmd-n2"].pid
    inside = ["nsenter", f"--target={slurmd}", "--mount"]
    folder = str(Path(read(training.run.plan).stage("train").container.image).parent)
    subprocess.run([*inside, "mount", "-t", "tmpfs", "none", folder], check=True)
    try:
        said = ends_badly(training.start(), PATIENCE_S)
    finally:
        subprocess.run([*inside, "umount", folder], check=True)
    assert "RDTL-C024" in said and folder in said
    assert training.event("finished.train.i0.n1.a1.r0")["host"] == "n2"
    assert training.attempt == 1 and not training.begun(1), "it was started again"
