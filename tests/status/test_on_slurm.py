"""Runs on a real Slurm: looked at, cancelled in part, resubmitted, with another process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from launcher.core.runs import RunDir
from tests.cli.run_rdtl import rdtl
from tests.integration.slurm_runs import Bench, stage
from tests.status.small_run import make, wait_until

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts Slurm in network namespaces: needs root"),
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="Slurm is not installed"),
]
# Odd tasks wait for a file, second attempts take longer; all say that they ran.
SCRIPT = (
    'echo $RDTL_INDEX.$RDTL_ATTEMPT >> "$RDTL_RUN_DIR/ran"; '
    'while [ $((RDTL_INDEX % 2)) = 1 ] && [ ! -e "$RDTL_RUN_DIR/go" ]; do sleep 0.2; done; '
    "test $RDTL_ATTEMPT = 1 || sleep 2"
)


@pytest.fixture
def environment(cluster: Path, tmp_path: Path) -> dict[str, str]:
    """What every command of a test gets: the cluster, an own cache, and a scancel that notes."""
    site = yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text())
    real = shutil.which("scancel")
    noting = tmp_path / "bin" / "scancel"
    noting.parent.mkdir()
    noting.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/scancel\nexec {real} "$@"\n')
    noting.chmod(0o755)
    return {
        **site["environment"],
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PATH": f"{noting.parent}:{os.environ['PATH']}",
    }


def ran(run: RunDir) -> list[str]:
    path = run.root / "ran"
    return sorted(path.read_text().split()) if path.exists() else []


def counts(run: RunDir, cluster: Path, environment: dict[str, str]) -> dict[str, dict[str, int]]:
    """Counts by stage, with a fresh look at the queue."""
    shutil.rmtree(environment["XDG_CACHE_HOME"], ignore_errors=True)
    done = rdtl("runs", "show", str(run.root), "--json", cwd=cluster, env=environment)
    assert done.returncode == 0, done.stderr
    return {s["stage"]: s["counts"] for s in json.loads(done.stdout)["stages"]}


def test_half_an_array_is_cancelled_and_only_that_half_runs_again(
    cluster: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    run = make(cluster / "runs" / "half-minislurm", "minislurm", SCRIPT, tasks=8)
    first = rdtl("runs", "resubmit", str(run.root), "--json", cwd=cluster, env=environment)
    assert first.returncode == 0, first.stderr
    work, report = json.loads(first.stdout)
    assert (work["stage"], work["indices"]) == ("work", list(range(8)))
    assert (report["stage"], report["indices"]) == ("report", [0])
    wait_until(lambda: len(ran(run)) == 8)
    wait_until(lambda: len(run.ledger.names("finished.work.")) == 4)
    (job,) = work["ids"]
    subprocess.run(
        ["scancel", f"{job}_[1,3]"], env={**os.environ, **environment}, check=True, timeout=30
    )
    wait_until(lambda: counts(run, cluster, environment)["work"].get("gone") == 2)
    now = counts(run, cluster, environment)
    assert now == {"work": {"done": 4, "gone": 2, "running": 2}, "report": {"waiting": 1}}
    again = rdtl("runs", "resubmit", str(run.root), "--json", cwd=cluster, env=environment)
    assert again.returncode == 0, again.stderr
    assert [(p["stage"], p["indices"]) for p in json.loads(again.stdout)] == [("work", [1, 3])]
    nothing = rdtl("runs", "resubmit", str(run.root), cwd=cluster, env=environment)
    assert "nothing to submit" in nothing.stderr, nothing.stderr
    (run.root / "go").touch()
    # Another process, in a place that knows no such site, drives it to its end.
    elsewhere = {k: v for k, v in environment.items() if k != "SLURM_CONF"}
    done = rdtl("runs", "resume", str(run.root), cwd=tmp_path, env=elsewhere)
    assert done.returncode == 0, done.stderr
    once = [f"{index}.1" for index in range(8)]
    assert ran(run) == sorted([*once, "1.2", "3.2"]), "something ran twice, or not at all"
    ends = [run.ledger.read(name) for name in run.ledger.names("finished.work.")]
    started = run.ledger.read("started.report.i0.a1.r0")
    assert started
    assert started["at"] > max(end["at"] for end in ends if end), "reported on half of the work"


@pytest.mark.slow
def test_a_report_made_without_a_failed_task_is_made_again(
    cluster: Path, environment: dict[str, str]
) -> None:
    script = 'test -e "$RDTL_RUN_DIR/mended" || test $RDTL_INDEX != 1'
    run = make(cluster / "runs" / "mended-minislurm", "minislurm", script, tasks=2)
    words = ("runs", "resume", str(run.root))
    assert rdtl(*words, cwd=cluster, env=environment).returncode == 1
    wait_until(lambda: run.ledger.read("finished.report.i0.n0.a1.r0"))
    (run.root / "mended").touch()
    again = rdtl("runs", "resubmit", str(run.root), "--json", cwd=cluster, env=environment)
    assert again.returncode == 0, again.stderr
    parts = [(p["stage"], p["indices"]) for p in json.loads(again.stdout)]
    assert parts == [("work", [1]), ("report", [0])]
    done = rdtl(*words, cwd=cluster, env=environment)
    assert done.returncode == 0, done.stderr
    assert run.ledger.attempts("report") == [1, 2]
    work, report = (
        run.ledger.read(f"{name}.a2.r0") for name in ("finished.work.i1.n0", "started.report.i0")
    )
    assert work and report and report["at"] > work["at"]


def test_cancel_is_one_call_for_all_stages(
    cluster: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    run = make(cluster / "runs" / "over-minislurm", "minislurm", SCRIPT, tasks=4)
    rdtl("runs", "resubmit", str(run.root), cwd=cluster, env=environment)
    wait_until(lambda: len(run.ledger.names("finished.work.")) == 2)
    before = (tmp_path / "scancel").read_text() if (tmp_path / "scancel").exists() else ""
    done = rdtl("runs", "cancel", str(run.root), "--json", cwd=cluster, env=environment)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["tasks"], result["over"]) == (3, 2)
    called = (tmp_path / "scancel").read_text().removeprefix(before).splitlines()
    assert called == [" ".join(result["jobs"])]
    wait_until(lambda: counts(run, cluster, environment)["work"] == {"done": 2, "gone": 2})
    shown = rdtl("runs", "show", str(run.root), cwd=cluster, env=environment)
    assert "was cancelled by" in shown.stdout
    again = rdtl("runs", "cancel", str(run.root), cwd=cluster, env=environment)
    assert "nothing of this run is alive" in again.stderr


def test_cancel_reaches_a_job_whose_launcher_was_killed_before_it_knew_the_id(
    cluster: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    bench = Bench(tmp_path, cluster, [stage(then="sleep 300")])
    killed = bench.start("sbatch:1")
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert bench.run.ledger.names("submitted.") == []
    (job,) = bench.jobs()
    done = rdtl("runs", "cancel", str(bench.run.root), "--json", cwd=cluster, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["jobs"] == [job]
    alive = ("squeue", "--me", "-h", "-o", "%F")
    bench.wait(lambda: job not in bench.slurm(*alive).split())


@pytest.mark.slow
def test_a_silent_cluster_makes_states_unknown_and_stops_changes(
    cluster: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    run = make(cluster / "runs" / "silent-minislurm", "minislurm", SCRIPT, tasks=2)
    rdtl("runs", "resubmit", str(run.root), cwd=cluster, env=environment)
    wait_until(lambda: len(run.ledger.names("finished.work.")) == 1)
    broken = tmp_path / "slurm.conf"
    real = Path(environment["SLURM_CONF"]).read_text()
    ports = [line for line in real.splitlines() if line.startswith("SlurmctldPort")]
    broken.write_text(real.replace(ports[0], "SlurmctldPort=1") + "\nMessageTimeout=1\n")
    site = yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text())
    site["environment"]["SLURM_CONF"] = str(broken)
    elsewhere = tmp_path / "configs" / "sites" / "minislurm.yaml"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(yaml.safe_dump(site))
    silent = {**environment, "SLURM_CONF": str(broken)}
    shown = rdtl("runs", "show", str(run.root), "--json", cwd=tmp_path, env=silent)
    assert shown.returncode == 0, shown.stderr
    work = json.loads(shown.stdout)["stages"][0]
    assert work["counts"] == {"done": 1, "unknown": 1}
    refused = rdtl("runs", "cancel", str(run.root), cwd=tmp_path, env=silent)
    assert refused.returncode == 4
    assert "RDTL-S032" in refused.stderr
    left = rdtl("runs", "clean", str(run.root), cwd=tmp_path, env=silent)
    assert "left alone" in left.stderr
    (run.root / "go").touch()
    assert rdtl("runs", "resume", str(run.root), cwd=cluster, env=environment).returncode == 0


def test_killed_and_doubled_resubmits_submit_once(
    cluster: Path, environment: dict[str, str]
) -> None:
    run = make(cluster / "runs" / "twice-minislurm", "minislurm", SCRIPT, tasks=4)
    (run.root / "go").touch()
    words = [sys.executable, "-P", "-m", "launcher", "runs", "resubmit", str(run.root)]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            words, cwd=cluster, env={**os.environ, **environment},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    with start() as killed:  # between its claim and its submission, or just after
        wait_until(lambda: run.ledger.names("claim.work.") != [])
        killed.kill()
    both = [start(), start()]
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    done = rdtl("runs", "resume", str(run.root), cwd=cluster, env=environment)
    assert done.returncode == 0, done.stderr
    assert ran(run) == [f"{index}.1" for index in range(4)]
    assert len(run.ledger.names("finished.report.")) == 1
