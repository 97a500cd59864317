"""The same road on a real multi-node Slurm: two nodes train, an array evaluates."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from launcher.arrays import cut
from launcher.core.plan import read
from launcher.core.runs import RunDir
from launcher.sites import Site
from launcher.submit.slurm import SlurmBackend
from tests.cli.run_rdtl import rdtl
from tests.road import small_demo

ROOT = Path(__file__).parent.parent.parent
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts Slurm in network namespaces: needs root"),
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="Slurm is not installed"),
]


def test_a_command_runs_on_two_nodes(cluster: Path) -> None:
    done = rdtl("run", "--site", "minislurm", "--nodes", "2", "--", "hostname", cwd=cluster)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["[0]", "[1]", "n1", "n2"]


def test_one_process_per_gpu_with_ranks_set(cluster: Path) -> None:
    script = (
        "echo $RANK/$WORLD_SIZE local $LOCAL_RANK node $NODE_RANK $MASTER_ADDR $GLOO_SOCKET_IFNAME"
    )
    done = rdtl("run", "--site", "minislurm", "--nodes", "2", "--gpus", "2", "--per", "gpu",
                "--", "sh", "-c", script, cwd=cluster)  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = sorted(line.split("] ")[1] for line in done.stdout.splitlines())
    assert lines == [f"{rank}/4 local {rank % 2} node {rank // 2} n1 eth0" for rank in range(4)]


def test_a_failing_node_ends_the_job_and_is_named(cluster: Path) -> None:
    script = "test $NODE_RANK = 0 && sleep 120; echo broken; exit 5"
    done = rdtl("run", "--site", "minislurm", "--nodes", "2", "--", "sh", "-c", script, cwd=cluster)
    assert done.returncode == 1
    assert "exit code 5" in done.stderr


def test_dry_run_prints_the_script_that_is_then_submitted(cluster: Path) -> None:
    common = ("run", "--site", "minislurm", "--name", "exact", "--nodes", "2", "--", "echo", "a b")
    dry = rdtl(*common[:1], "--dry-run", *common[1:], cwd=cluster)
    assert dry.returncode == 0, dry.stderr
    assert not (cluster / "runs" / "exact-minislurm").exists()
    real = rdtl(*common, cwd=cluster)
    assert real.returncode == 0, real.stderr
    (script,) = (cluster / "runs/exact-minislurm/slurm/run/attempt_1").glob("submission.sh")
    assert script.read_text().strip() in dry.stdout


def test_the_pipeline_script_is_one_that_sbatch_accepts(cluster: Path) -> None:
    done = rdtl("train", str(ROOT / "configs/train/demo.yaml"), "--site", "minislurm", "--dry-run",
                "--json", cwd=cluster)  # fmt: skip
    assert done.returncode == 0, done.stderr
    scripts = json.loads(done.stdout)["scripts"]
    assert list(scripts) == ["collect", "dataset", "train"]
    site = yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text())
    for name, text in scripts.items():
        script = cluster / f"{name}.sh"
        kept = [line for line in text.splitlines() if "--dependency" not in line]
        script.write_text("\n".join(kept))
        test = subprocess.run(
            ["sbatch", "--test-only", str(script)], env={**os.environ, **site["environment"]},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert test.returncode == 0, test.stderr


def test_the_demo_on_slurm_gives_the_tables_of_the_local_run(
    cluster: Path, uninterrupted: Path
) -> None:
    """Two nodes with one rank each compute what two ranks on one machine compute, bit for bit.

    On the cluster everything runs in the image, and the training is preempted once
    (SIGUSR2): it saves between two steps, and Slurm starts it again. Here it ran
    without either.
    """
    run = RunDir(cluster / "runs" / "demo-quick-minislurm")
    with subprocess.Popen(
        small_demo.command("--site", "minislurm", "--set", "evaluate.videos=1"),
        cwd=cluster, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as launcher:  # fmt: skip
        preempt_training(cluster, run, launcher)
        _, err = launcher.communicate(timeout=600)
    assert launcher.returncode == 0, err
    plan = read(run.plan)
    assert (plan.stage("train").nodes, plan.stage("train").ranks_per_node) == (2, 1)
    codes = [
        (run.ledger.read(f"finished.train.i0.n{node}.a1.r{restart}") or {})["exit_code"]
        for restart in (0, 1)
        for node in (0, 1)
    ]
    assert codes == [85, 85, 0, 0]
    hosts = [(run.ledger.read(f"finished.train.i0.n{n}.a1.r1") or {})["host"] for n in (0, 1)]
    assert len(set(hosts)) == 2
    model = "policy/model.safetensors"
    assert small_demo.digest(run.root / model) == small_demo.digest(uninterrupted / model)
    assert small_demo.table(run.root) == small_demo.table(uninterrupted)
    assert {record.host for record in small_demo.records(run.root)} <= {"n1", "n2", "n3"}
    assert len(list((run.root / "videos").glob("*.mp4"))) == 1


def preempt_training(cluster: Path, run: RunDir, launcher: subprocess.Popen[str]) -> None:
    """Signal the training job after its third step, and lift the delay of its restart."""
    site = yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text())
    env = {**os.environ, **site["environment"]}
    loss = run.checkpoints / "metrics.jsonl"
    deadline = time.monotonic() + 400
    while not loss.exists() or loss.read_bytes().count(b"\n") < 3:
        assert launcher.poll() is None, launcher.communicate()
        assert time.monotonic() < deadline, "the training never began"
        time.sleep(0.01)
    (id_,) = (run.ledger.read("submitted.train.a1") or {})["ids"]
    subprocess.run(["scancel", "--signal=USR2", id_], env=env, check=True)
    state = ["squeue", "--noheader", f"--jobs={id_}", "--format=%T"]
    while "PENDING" not in subprocess.run(
        state, env=env, capture_output=True, text=True, check=True
    ).stdout:  # fmt: skip
        assert time.monotonic() < deadline, "the training was not started again"
        time.sleep(0.2)
    time.sleep(1.1)  # started in the second of its requeue, Slurm would revoke its credential
    subprocess.run(["scontrol", "update", f"jobid={id_}", "StartTime=now"], env=env, check=True)


def test_a_killed_launcher_finds_its_jobs_again(cluster: Path) -> None:
    """Killed after submission, the next launcher attaches: nothing is submitted twice."""
    arguments = ("run", "--site", "minislurm", "--name", "attach", "--", "sh", "-c",
                 "sleep 6; echo done")  # fmt: skip
    run = RunDir(cluster / "runs" / "attach-minislurm")
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "launcher", *arguments], cwd=cluster,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as launcher:  # fmt: skip
        while not run.ledger.read("submitted.run.a1"):
            assert launcher.poll() is None
        launcher.kill()
    done = rdtl(*arguments, cwd=cluster)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "done"
    assert run.ledger.attempts("run") == [1]


def test_a_submission_whose_record_was_lost_is_found_by_its_name(cluster: Path) -> None:
    """Killed between sbatch and its record: the tag in the queue is what is left."""
    arguments = ("run", "--site", "minislurm", "--name", "lost", "--", "sleep", "20")
    run = RunDir(cluster / "runs" / "lost-minislurm")
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "launcher", *arguments], cwd=cluster,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as launcher:  # fmt: skip
        while not run.ledger.read("submitted.run.a1"):
            assert launcher.poll() is None
        launcher.kill()
    event = run.ledger.read("submitted.run.a1")
    assert event
    (run.root / "events" / "submitted.run.a1.json").unlink()
    site = Site(**yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text()))
    backend = SlurmBackend(run, site)
    assert backend.find(cut("run", 1, [0], None)[0], event["at"]) == event["ids"]
    backend.cancel(event["ids"])
