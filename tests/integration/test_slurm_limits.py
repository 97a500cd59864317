"""What a cluster takes at once, at all, and what its accounting database allows and knows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from launcher import diagnose
from launcher.arrays import cut
from launcher.core import files
from launcher.submit.slurm import job_name
from tests.cli.run_rdtl import rdtl
from tests.cluster import daemons, layout, processes
from tests.integration.slurm_runs import (
    NEEDS,
    ONCE,
    ROOT,
    Bench,
    controller_of,
    ends_badly,
    ends_well,
    stage,
)

pytestmark = NEEDS


@pytest.mark.slow
def test_an_array_larger_than_the_queue_goes_in_part_by_part(cluster: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path, cluster, [stage(array=5), stage("b", needs="a")], max_queued_tasks=2)
    launcher = bench.start()
    most = 0
    while launcher.poll() is None:
        most = max(
            most, len(bench.slurm("squeue", "--array", "-h", "-n", names_of(bench)).split("\n"))
        )
        time.sleep(0.1)
    ends_well(launcher)
    assert most <= 2
    assert bench.ran() == {**{f"a.{index}": 1 for index in range(5)}, "b.0": 1}
    assert len(bench.jobs()) == 4
    assert len(list(bench.run.root.glob("slurm/a/attempt_1/part_*/submission.sh"))) == 3


@pytest.mark.slow
def test_a_run_that_is_continued_gets_the_limits_that_are_asked_now(cluster: Path) -> None:
    says = "squeue -h -j $SLURM_JOB_ID -o '%l %m'; test $RDTL_ATTEMPT = 2"

    def run(minutes: str, memory_gb: str) -> list[str]:
        limits = ("--minutes", minutes, "--memory-gb", memory_gb)
        words = ("--site", "minislurm", "--name", "limits", *limits, "--", "sh", "-c", says)
        return rdtl("run", *words, cwd=cluster).stdout.split()

    assert run("3", "0.2") == ["3:00", "200M"]
    assert run("7", "0.3") == ["7:00", "300M"]


def names_of(bench: Bench) -> str:
    parts = cut("a", 1, list(range(5)), 2)
    return ",".join(job_name(bench.run, "a", part.tag) for part in parts)


def configure(machine: layout.Cluster, text: str) -> None:
    """Another slurm.conf, read by a controller that keeps its state."""
    machine.slurm_conf.write_text(text)
    daemons.run(machine, "scontrol", "shutdown", "slurmctld")  # it saves its state first
    records = processes.recorded(machine.records)
    processes.wait_until(lambda: not records["slurmctld"].alive, 20, "end of slurmctld")
    daemons.restart_controller(machine)


def test_an_array_larger_than_the_cluster_takes_is_cut(cluster: Path, tmp_path: Path) -> None:
    """MaxArraySize is one more than the highest index: a plain sbatch of as many is refused."""
    machine, bench = controller_of(cluster), Bench(tmp_path, cluster, [stage(array=9)])
    usual = machine.slurm_conf.read_text()
    configure(machine, usual.replace("MaxArraySize=10001", "MaxArraySize=4"))
    try:
        plain = [["sbatch", "--hold", f"--array=0-{last}", "--wrap=true"] for last in (4, 3)]
        refused, taken = (
            subprocess.run(
                argv, cwd=tmp_path, env=bench.environment, capture_output=True, text=True
            )
            for argv in plain
        )
        ends_well(bench.start())
    finally:
        bench.slurm("scancel", "--name=wrap")
        configure(machine, usual)
    (tmp_path / "refused").write_text(refused.stderr)
    assert [found.code for found in diagnose.diagnose(tmp_path / "refused")] == ["RDTL-S002"]
    assert (refused.returncode, taken.returncode) == (1, 0)
    assert bench.ran() == {f"a.{index}": 1 for index in range(9)}
    assert len(bench.jobs()) == 3


def test_what_the_cluster_can_never_run_is_refused_before_anything_is_written(
    cluster: Path,
) -> None:
    environment = yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text())
    update = ["scontrol", "update", "partition=main"]
    slurm = {**os.environ, **environment["environment"]}
    subprocess.run([*update, "MaxTime=30"], env=slurm, check=True)
    try:
        common = ("run", "--site", "minislurm", "--name", "long", "--runtime", "none")
        done = rdtl(*common, "--minutes", "31", "--", "true", cwd=cluster)
        assert done.returncode == 3
        assert "RDTL-S021" in done.stderr and "at most 30 minutes" in done.stderr
        assert "low" in done.stderr and "high" in done.stderr
        assert not (cluster / "runs" / "long-minislurm" / "plan.json").exists()
        assert rdtl(*common, "--minutes", "30", "--", "true", cwd=cluster).returncode == 0
    finally:
        subprocess.run([*update, "MaxTime=INFINITE"], env=slurm, check=True)


@pytest.fixture(scope="module")
def accounting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster with a database that enforces limits: at most three tasks of a user."""
    folder = tmp_path_factory.mktemp("accounting")
    root = Path(tempfile.mkdtemp(prefix="rdtl-acct-"))
    verb = [sys.executable, "-m", "tests.cluster.minislurm"]
    options = ["--root", str(root)]
    try:
        subprocess.run([*verb, "up", *options, "--accounting"], cwd=ROOT, check=True, timeout=120)
        (folder / "configs" / "sites").mkdir(parents=True)
        shutil.copy(root / "minislurm.yaml", folder / "configs" / "sites" / "minislurm.yaml")
        machine = controller_of(folder)
        limit = ["modify", "qos", "normal", "set", "MaxSubmitJobsPerUser=3"]
        assert daemons.run(machine, "sacctmgr", "-i", *limit).returncode == 0
        configure(machine, f"{machine.slurm_conf.read_text()}AccountingStorageEnforce=limits,qos\n")
        yield folder
    finally:
        subprocess.run([*verb, "down", *options], cwd=ROOT, check=True, timeout=120)
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.slow
def test_a_limit_of_the_accounting_database_is_read_and_kept(
    accounting: Path, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, accounting, [stage(array=7)])
    ends_well(bench.start(), 60)
    assert bench.ran() == {f"a.{index}": 1 for index in range(7)}
    lists = sorted(bench.run.root.glob("slurm/a/attempt_1/part_*/tasks.json"))
    assert [files.read_json(path)["indices"] for path in lists] == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.slow
def test_how_a_job_ended_comes_from_accounting(accounting: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path, accounting, [stage(then="sleep 60")], partition="low")
    bench.slurm("scontrol", "update", "partition=low", "state=DOWN")
    launcher = bench.start()
    bench.wait(lambda: bench.jobs())
    bench.slurm("scancel", *bench.jobs())
    bench.slurm("scontrol", "update", "partition=low", "state=UP")
    assert "RDTL-S036" in ends_badly(launcher)


@pytest.mark.slow
def test_a_database_that_is_down_stops_neither_submission_nor_looking(
    accounting: Path, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, accounting, [stage(array=2), stage("b", needs="a")])
    bench.start("sbatch:1").communicate(timeout=60)
    daemons.kill(controller_of(accounting), "slurmdbd")
    ends_well(bench.start(), 120)
    assert bench.ran() == ONCE and len(bench.jobs()) == 2
