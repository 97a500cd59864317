"""Preemption, cancelling and lost nodes on a real Slurm: what goes on, what stays ended."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from launcher.core.runs import RunDir
from rdt.spec.record import read_folder, read_lines
from tests.cli.run_rdtl import rdtl
from tests.cluster import daemons, layout
from tests.integration.slurm_training import Machine

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts Slurm in network namespaces: needs root"),
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="Slurm is not installed"),
    pytest.mark.usefixtures("sif"),
]
# Saves when it is asked; the second start finds what the first has saved and ends well.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
seen = []
for number in (signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, lambda n, frame: seen.append(n))
node = os.environ["NODE_RANK"]
state = Path(f"state.{node}")
if state.exists():
    print("resumed on node", node, "restart", os.environ["RDTL_RESTART"])
    sys.exit(0)
Path(f"ready.{node}").touch()
end = time.monotonic() + 120
while not seen and time.monotonic() < end:
    time.sleep(0.02)
state.write_text("saved")
sys.exit(85 if signal.SIGUSR2 in seen else 86)
"""
DEAF = """
import os, time
from pathlib import Path
Path("ready." + os.environ["NODE_RANK"]).touch()
if os.environ["RDTL_RESTART"] == "0":
    time.sleep(120)
"""
"""Without a handler TERM ends it, and it has saved nothing; started again, it ends well."""


SLOW = """
import signal, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path("ready.0").touch()
time.sleep(120)
"""
"""Takes longer to save than Slurm lets it (KillWait): it is killed and leaves no trace."""


class Running:
    """``rdtl run`` of the program above in a directory of its own, attached to its job."""

    def __init__(self, cluster: Path, name: str, nodes: int = 1, program: str = PROGRAM) -> None:
        self.cwd = cluster / f"cwd-{name}"
        self.cwd.mkdir()
        shutil.copytree(cluster / "configs", self.cwd / "configs")
        self.run = RunDir(self.cwd / "runs" / f"{name}-minislurm")
        site = yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text())
        self.environment = {**os.environ, **site["environment"]}
        self.arguments = ["run", "--site", "minislurm", "--runtime", "apptainer", "--name", name,
                          "--nodes", str(nodes), "--", "python", "-c", program]  # fmt: skip
        self.launcher = subprocess.Popen(
            [sys.executable, "-P", "-m", "launcher", *self.arguments], cwd=self.cwd, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.wait(lambda: len(list(self.cwd.glob("ready.*"))) == nodes)

    @property
    def id(self) -> str:
        (found,) = (self.run.ledger.read("submitted.run.a1") or {})["ids"]
        return str(found)

    def slurm(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True,
                              check=True)  # fmt: skip
        return done.stdout.strip()

    def wait(self, moment: Callable[[], object], seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while not moment():
            assert time.monotonic() < end, "the moment never came"
            time.sleep(0.05)

    def at_once(self) -> None:
        """Lift the delay of a requeued job: Slurm waits until its credentials have expired."""
        self.wait(lambda: "PENDING" in self.slurm("squeue", "-h", "-j", self.id, "-o", "%T"))
        time.sleep(1.1)  # started in the second of its requeue, Slurm would revoke its credential
        self.slurm("scontrol", "update", f"jobid={self.id}", "StartTime=now")


@pytest.mark.slow
def test_usr2_requeues_and_the_same_job_goes_on(cluster: Path) -> None:
    running = Running(cluster, "usr2", nodes=2)
    running.slurm("scancel", "--signal=USR2", running.id)
    running.at_once()
    out, err = running.launcher.communicate(timeout=90)
    assert running.launcher.returncode == 0, err
    assert sorted(line.split("resumed ")[1] for line in out.splitlines() if "resumed" in line) == [
        "on node 0 restart 1", "on node 1 restart 1",
    ]  # fmt: skip
    ledger = running.run.ledger
    for node in (0, 1):
        assert (ledger.read(f"finished.run.i0.n{node}.a1.r0") or {})["exit_code"] == 85
        assert (ledger.read(f"finished.run.i0.n{node}.a1.r1") or {})["exit_code"] == 0
    assert ledger.attempts("run") == [1], "the launcher submitted it a second time"


@pytest.mark.slow
def test_a_cancelled_job_saves_and_is_not_brought_back(cluster: Path) -> None:
    running = Running(cluster, "term")
    running.slurm("scancel", running.id)
    _, err = running.launcher.communicate(timeout=90)
    assert running.launcher.returncode == 1
    assert "RDTL-S036" in err
    assert (running.cwd / "state.0").read_text() == "saved"
    time.sleep(8)  # a requeued job would start after 6 s (cred_expire of the test cluster)
    assert running.slurm("squeue", "-h", "-j", running.id) == ""
    assert running.run.ledger.names("started.run.i0.a1.r1") == []
    again = rdtl(*running.arguments, cwd=running.cwd)
    assert again.returncode == 0, again.stderr
    assert running.run.ledger.attempts("run") == [1, 2]


@pytest.mark.slow
def test_one_that_is_killed_while_it_saves_was_cancelled_too(cluster: Path) -> None:
    running = Running(cluster, "slow", program=SLOW)
    running.slurm("scancel", running.id)
    _, err = running.launcher.communicate(timeout=90)
    assert "RDTL-S036" in err
    assert running.run.ledger.names("finished.run") == []


@pytest.mark.slow
def test_one_that_term_ends_was_cancelled_too(cluster: Path) -> None:
    running = Running(cluster, "deaf-too", program=DEAF)
    running.slurm("scancel", running.id)
    _, err = running.launcher.communicate(timeout=90)
    assert "RDTL-S036" in err
    assert (running.run.ledger.read("finished.run.i0.n0.a1.r0") or {})["exit_code"] == 143


def in_low(cluster: Path, name: str) -> Path:
    """A directory whose site ``minislurm`` sends to the partition that others preempt."""
    site = yaml.safe_load((cluster / "configs" / "sites" / "minislurm.yaml").read_text())
    sites = cluster / name / "configs" / "sites"
    sites.mkdir(parents=True)
    (sites / "minislurm.yaml").write_text(yaml.safe_dump({**site, "partition": "low"}))
    return cluster / name


def preempt(running: Running) -> None:
    """A job of a higher partition takes all nodes for a second."""
    high = ["srun", "--partition=high", "--nodes=3", "--exclusive", "--immediate=60", "sleep", "1"]
    subprocess.run(high, env=running.environment, check=True, timeout=90, cwd="/")


def test_a_preempted_job_goes_on_when_the_other_one_is_done(cluster: Path) -> None:
    """A job of a higher partition takes the nodes: Slurm itself sends USR2 and starts it again."""
    running = Running(in_low(cluster, "low"), "low", nodes=3)
    preempt(running)
    running.at_once()
    _, err = running.launcher.communicate(timeout=90)
    assert running.launcher.returncode == 0, err
    assert running.run.ledger.current_restart("run", 0, 1) == 1


@pytest.mark.slow
def test_a_preempted_program_without_a_handler_has_not_failed(cluster: Path) -> None:
    """TERM alone ends it at once; Slurm starts it again all the same, after the grace time."""
    running = Running(in_low(cluster, "deaf"), "deaf", nodes=2, program=DEAF)
    with Machine(cluster).preemption_by_term(grace_s=4):
        preempt(running)
    running.at_once()
    _, err = running.launcher.communicate(timeout=90)
    assert running.launcher.returncode == 0, err
    ledger = running.run.ledger
    assert ledger.attempts("run") == [1], "the launcher submitted it a second time"
    assert (ledger.read("finished.run.i0.n0.a1.r0") or {})["exit_code"] == 86
    assert (ledger.read("finished.run.i0.n1.a1.r0") or {})["exit_code"] == 86


@pytest.mark.slow
def test_a_cancelled_program_without_a_handler_ends_at_once(cluster: Path) -> None:
    """Nobody waits for KILL, which Slurm sends KillWait (5 s here) after TERM."""
    running = Running(cluster, "deaf-cancelled", program=DEAF)
    began = time.monotonic()
    running.slurm("scancel", running.id)
    state = ["squeue", "--states=all", "-h", "-j", running.id, "-o", "%T"]
    running.wait(lambda: running.slurm(*state) == "CANCELLED")
    assert time.monotonic() - began < 4
    assert running.launcher.wait(90) == 1
    assert (running.run.ledger.read("finished.run.i0.n0.a1.r0") or {})["exit_code"] == 143


@pytest.mark.slow
def test_a_job_of_a_dead_node_goes_on_elsewhere(cluster: Path) -> None:
    running = Running(cluster, "dead")
    (running.cwd / "state.0").write_text("what an earlier step has saved")
    node = running.slurm("squeue", "-h", "-j", running.id, "-o", "%N")
    root = Path(running.environment["SLURM_CONF"]).parents[1]
    verb = [sys.executable, "-m", "tests.cluster.minislurm", "kill-node", "--root", str(root)]
    subprocess.run([*verb, node], check=True, cwd=Path(__file__).parents[2])
    running.wait(lambda: running.run.ledger.names("started.run.i0.a1.r1"), seconds=120)
    _, err = running.launcher.communicate(timeout=120)
    assert running.launcher.returncode == 0, err
    found = layout.load(root)
    assert found is not None
    daemons.restart_node(found[0], node)
    started = [running.run.ledger.read(f"started.run.i0.a1.r{r}") or {} for r in (0, 1)]
    assert started[0]["host"] != started[1]["host"]


@pytest.mark.slow
def test_a_job_whose_slurmd_died_is_fenced_off_when_slurm_starts_it_elsewhere(
    cluster: Path,
) -> None:
    """Only slurmd dies: the job lives on while Slurm gives its node up and starts it again."""
    folder = cluster / "fence"
    shutil.copytree(cluster / "configs", folder / "configs")
    config = {
        "name": "fence",
        "evaluate": {"policies": ["zero"], "init_states": [30, 50], "shards": 1, "videos": 0},
    }
    (folder / "fence.yaml").write_text(yaml.safe_dump(config))
    words = ["evaluate", "fence.yaml", "--site", "minislurm", "--runtime", "apptainer"]
    run = RunDir(folder / "runs" / "fence-minislurm")
    site = yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text())
    found = layout.load(Path(site["environment"]["SLURM_CONF"]).parents[1])
    assert found is not None
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "launcher", *words], cwd=folder, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as launcher:  # fmt: skip
        end = time.monotonic() + 120
        while not list(run.records.glob("part-a1-*")):
            assert launcher.poll() is None, launcher.communicate()
            assert time.monotonic() < end
            time.sleep(0.1)
        first = (run.ledger.read("started.evaluate.i0.a1.r0") or {})["host"]
        daemons.kill(found[0], f"slurmd-{first}")
        while not run.ledger.names("started.evaluate.i0.a1.r1"):
            assert time.monotonic() < end + 120, "Slurm never gave the node up"
            time.sleep(0.1)
        _, err = launcher.communicate(timeout=400)
    assert launcher.returncode == 0, err
    second = (run.ledger.read("started.evaluate.i0.a1.r1") or {})["host"]
    assert second != first
    assert len(read_folder(run.records)) == 20
    assert len(read_lines(run.records)) == 20, "two rounds recorded one episode"
    daemons.restart_node(found[0], first)
    ended = run.ledger.read("finished.evaluate.i0.n0.a1.r0") or {}
    assert ended["exit_code"] != 0, "the old round was not stopped"
    # What the scheduler has mounted for a job may go with it, the run's directory here, before
    # the old round meets the new one.
    assert ended["error"] is None or ended["error"]["code"] == "RDTL-S034"
