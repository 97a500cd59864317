"""Faults really made while a launcher submits and looks: no duplicate, no loss, no false word."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from launcher import diagnose
from launcher.arrays import cut
from launcher.core import files, runtimes
from launcher.core.plan import Plan, Stage
from launcher.core.runs import RunDir
from launcher.core.runtimes import Bind
from launcher.submit.slurm import job_name, job_prefix
from tests import inside
from tests.cli.run_rdtl import rdtl
from tests.cluster import daemons, layout, processes
from tests.submit.test_slurm_script import NASTY

ROOT = Path(__file__).parent.parent.parent
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(os.geteuid() != 0, reason="starts Slurm in network namespaces: needs root"),
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="Slurm is not installed"),
]


class Bench:
    """A run on the test cluster, and hands on both."""

    def __init__(self, folder: Path, cluster: Path, stages: list[Stage], **site: object) -> None:
        self.run = RunDir(folder / "run")
        for name in ("jobs", "launcher"):
            shutil.copytree(ROOT / name, self.run.code / name)
        settings = yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text()) | site
        self.site_file = folder / "site.yaml"
        self.site_file.write_text(yaml.safe_dump(settings))
        self.environment = {**os.environ, **settings["environment"]}
        root = str(self.run.root)
        image = inside.container(Bind(root, root, read_only=False))
        placed = tuple(replace(stage, container=image) for stage in stages)
        files.write_json(self.run.plan, Plan("faults", "minislurm", placed, {}).to_dict())

    def start(self, moment: str = "", path: str = "") -> subprocess.Popen[str]:
        """Start a launcher; ``path`` is searched first for programs."""
        environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}".removeprefix(":")}
        argv = ["-m", "tests.integration.drive_run", str(self.run.root), str(self.site_file)]
        return subprocess.Popen(
            [sys.executable, *argv, *([moment] if moment else [])],
            cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def slurm(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout.strip()

    def jobs(self) -> list[str]:
        """Ids of all jobs of this run that the controller remembers, ended ones too."""
        lines = self.slurm("squeue", "--states=all", "-h", "-o", "%F|%j").splitlines()
        prefix = job_prefix(self.run)
        return sorted(
            {line.split("|")[0] for line in lines if line.split("|")[1].startswith(prefix)}
        )

    def ran(self) -> dict[str, int]:
        """How often each task ran."""
        path = self.run.root / "ran"
        return dict(sorted(Counter(path.read_text().split()).items())) if path.exists() else {}

    def wait(self, moment: Callable[[], object], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not moment():
            assert time.monotonic() < end, "the moment never came"
            time.sleep(0.05)


def stage(name: str = "a", array: int = 1, then: str = "true", needs: str = "") -> Stage:
    """A stage whose tasks note that they ran, then do ``then`` in the run directory."""
    note = f'echo "$RDTL_STAGE.$RDTL_INDEX" >> ran; {then}'
    argv = ("sh", "-c", note)
    return Stage(name, argv, tuple(needs), array=array, memory_mb=100, own_code=False)


def ends_well(launcher: subprocess.Popen[str], seconds: float = 90) -> str:
    """What a launcher said that must succeed."""
    said = launcher.communicate(timeout=seconds)[1]
    assert launcher.returncode == 0, said
    return said


def ends_badly(launcher: subprocess.Popen[str], seconds: float = 60) -> str:
    said = launcher.communicate(timeout=seconds)[1]
    assert launcher.returncode not in (0, -signal.SIGKILL), said
    return said


ONCE = {"a.0": 1, "a.1": 1, "b.0": 1}
KILLS = ["before:1", "before:2", "after:2", "sbatch:1", "after:3", "sbatch:2"]
MORE_KILLS = ["after:4", "after:5", "after:6"]
"""Events 1 to 3 are claim, sending, submitted of the first stage, 4 to 6 those of the second."""


@pytest.mark.parametrize(
    "moments",
    [pytest.param(KILLS, id="most"), pytest.param(MORE_KILLS, id="rest", marks=pytest.mark.slow)],
)
def test_a_launcher_killed_between_any_two_events_sends_nothing_twice(
    cluster: Path, tmp_path: Path, moments: list[str]
) -> None:
    """Each launcher dies at another moment; the next one goes on."""
    benches = {}
    for moment in moments:
        folder = tmp_path / moment.replace(":", "-")
        folder.mkdir()
        benches[moment] = Bench(folder, cluster, [stage(array=2), stage("b", needs="a")])
    for some in in_pairs(moments):  # two at a time: this machine may have two cores
        killed = [benches[moment].start(moment) for moment in some]
        for launcher in killed:
            launcher.communicate(timeout=60)
            assert launcher.returncode == -signal.SIGKILL
    again = [bench.start() for bench in benches.values()]
    for launcher in again:
        ends_well(launcher, 120)
    for moment, bench in benches.items():
        assert bench.ran() == ONCE, moment
        assert len(bench.jobs()) == 2, moment
        assert bench.run.ledger.attempts("a") == [1], moment


def in_pairs(moments: list[str]) -> Iterator[list[str]]:
    for first in range(0, len(moments), 2):
        yield moments[first : first + 2]


def test_two_launchers_at_once_submit_once_and_both_end(cluster: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path, cluster, [stage(array=2), stage("b", needs="a")])
    for launcher in [bench.start(), bench.start()]:
        ends_well(launcher)
    assert bench.ran() == ONCE
    assert len(bench.jobs()) == 2


BROKEN_SBATCH = """#!/bin/sh
# {title}
if ! mkdir {folder}/first 2>/dev/null; then exec {sbatch} "$@"; fi
{line}
echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2
exit 1
"""


@pytest.mark.parametrize("went_in", [True, False])
def test_an_sbatch_without_an_answer_is_looked_up_first(
    cluster: Path, tmp_path: Path, went_in: bool
) -> None:
    sbatch = shutil.which("sbatch")
    line = f'{sbatch} "$@" > /dev/null' if went_in else "true"
    bench = Bench(tmp_path, cluster, [stage(array=2)])
    programs = tmp_path / "programs"
    programs.mkdir()
    text = BROKEN_SBATCH.format(
        title="the answer of the first call is lost", folder=tmp_path, sbatch=sbatch, line=line
    )
    (programs / "sbatch").write_text(text)
    (programs / "sbatch").chmod(0o755)
    said = ends_well(bench.start(path=str(programs)))
    assert "does not answer" in said
    assert len(bench.jobs()) == 1
    assert bench.ran() == {"a.0": 1, "a.1": 1}
    tries = bench.run.ledger.names("sending.a.a1.t")
    assert len(tries) == (1 if went_in else 2)


def controller_of(cluster: Path) -> layout.Cluster:
    site = yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text())
    found = layout.load(Path(site["environment"]["SLURM_CONF"]).parent.parent)
    assert found
    return found[0]


@pytest.mark.parametrize(
    "away_s", [6, pytest.param(60, marks=pytest.mark.slow)], ids=["6 s", "60 s"]
)
def test_a_controller_away_while_submitting_and_while_looking(
    cluster: Path, tmp_path: Path, away_s: float
) -> None:
    machine = controller_of(cluster)
    folders = [tmp_path / "submits", tmp_path / "looks"]
    for folder in folders:
        folder.mkdir()
    submits = Bench(folders[0], cluster, [stage(array=2)])
    looks = Bench(folders[1], cluster, [stage(then="while ! test -e go; do sleep 0.1; done")])
    looking = looks.start()
    looks.wait(looks.ran)
    wait_for_saved_state(machine, looks)
    daemons.kill(machine, "slurmctld")
    try:
        submitting = submits.start()
        time.sleep(away_s)
    finally:
        daemons.restart_controller(machine)
    said = ends_well(submitting)
    assert "does not answer" in said and "answers again" in said
    assert submits.ran() == {"a.0": 1, "a.1": 1} and len(submits.jobs()) == 1
    (looks.run.root / "go").touch()
    ends_well(looking)
    assert looks.ran() == {"a.0": 1} and len(looks.jobs()) == 1


def wait_for_saved_state(machine: layout.Cluster, bench: Bench) -> None:
    """The controller saves changes every five seconds; what is younger a crash forgets.

    It may just have saved, and without a change it would not do so again.
    """
    started = time.time()
    (job,) = bench.jobs()
    bench.slurm("scontrol", "update", f"jobid={job}", "comment=changed")
    bench.wait(lambda: (machine.root / "state" / "job_state").stat().st_mtime > started, 20)


def test_half_an_array_cancelled_only_that_half_runs_again(cluster: Path, tmp_path: Path) -> None:
    wait = "while ! test -e go; do sleep 0.1; done"
    bench = Bench(tmp_path, cluster, [stage(array=6, then=wait)], tasks_at_once=3)
    launcher = bench.start()
    bench.wait(lambda: len(bench.ran()) == 3)
    (job,) = bench.jobs()
    bench.slurm("scancel", f"{job}_[3-5]")
    (bench.run.root / "go").touch()
    assert "RDTL-S033" in ends_badly(launcher)
    ends_well(bench.start())
    assert bench.ran() == {f"a.{index}": 1 for index in range(6)}
    assert (bench.run.ledger.read("claim.a.a2") or {})["indices"] == [3, 4, 5]


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


def test_what_a_plain_sbatch_does_not_forgive(cluster: Path, tmp_path: Path) -> None:
    """A folder of logs that is missing leaves no word and nothing run; pmix is not everywhere;
    and a program in a container, which has no scontrol, cannot have itself started again."""
    requeue = "import subprocess; subprocess.run(['scontrol', 'requeue', '1'])"
    inside_it = f'{runtimes.IMAGE_PYTHON} -c "{requeue}" 2> said; true'
    bench = Bench(tmp_path, cluster, [stage(then=inside_it)])
    log, touch = tmp_path / "missing" / "job.log", f"touch {tmp_path / 'ran'}"
    wait = ["sbatch", "--wait", "--mem=100", f"--output={log}", f"--wrap={touch}"]
    done = subprocess.run(wait, env=bench.environment, capture_output=True, timeout=60)
    assert done.returncode != 0 and not log.exists() and not (tmp_path / "ran").exists()
    step = ["srun", "--mpi=pmix", "--mem=100", "true"]
    mpi = subprocess.run(step, env=bench.environment, capture_output=True, timeout=60)
    assert mpi.returncode != 0 and b"pmix" in mpi.stderr
    ends_well(bench.start())
    assert bench.ran() == {"a.0": 1}
    assert list(bench.run.root.glob("slurm/a/attempt_1/*.log"))
    said = diagnose.diagnose(bench.run.root / "said")
    assert [found.code for found in said] == ["RDTL-S009"]


def names_of(bench: Bench) -> str:
    parts = cut("a", 1, list(range(5)), 2)
    return ",".join(job_name(bench.run, "a", part.tag) for part in parts)


def test_a_stage_whose_parent_failed_never_waits_for_ever(cluster: Path, tmp_path: Path) -> None:
    bench = Bench(tmp_path, cluster, [stage(then="exit 7"), stage("b", needs="a")])
    said = ends_badly(bench.start())
    assert "stage a failed (exit code 7)" in said
    assert bench.ran() == {"a.0": 1}
    bench.wait(lambda: not bench.slurm("squeue", "-h", "-j", ",".join(bench.jobs())), 20)


def test_a_directory_with_every_nasty_character_works(cluster: Path, tmp_path: Path) -> None:
    folder = tmp_path / NASTY.name
    folder.mkdir()
    bench = Bench(folder, cluster, [stage(array=2)])
    ends_well(bench.start())
    assert bench.ran() == {"a.0": 1, "a.1": 1}
    logs = list((bench.run.root / "slurm" / "a" / "attempt_1").glob("*.n0.log"))
    assert len(logs) == 2 and not (tmp_path.parent / "None").exists()


def test_a_full_run_directory_loses_nothing(cluster: Path, tmp_path: Path) -> None:
    """Full before the claim, and full when the job is in but its id cannot be written down."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path], check=True)
    bench = Bench(tmp_path, cluster, [stage(array=2)], partition="low")
    # The nodes do not see this file system: nothing may start.
    bench.slurm("scontrol", "update", "partition=low", "state=DOWN")
    full = tmp_path / "full"
    try:
        fill(full)
        assert "No space left" in ends_badly(bench.start())
        assert bench.jobs() == []
        full.unlink()
        bench.start("sbatch:1").communicate(timeout=60)
        fill(full)
        assert "No space left" in ends_badly(bench.start())
        full.unlink()
        last = bench.start()
        bench.wait(lambda: bench.run.ledger.read("submitted.a.a1"))
        last.kill()
        last.communicate()
        assert bench.jobs() == (bench.run.ledger.read("submitted.a.a1") or {})["ids"]
    finally:
        bench.slurm("scancel", "--me", "--partition=low")
        bench.slurm("scontrol", "update", "partition=low", "state=UP")
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


def fill(path: Path) -> None:
    """Grow ``path`` until not one byte more fits on its file system."""
    with path.open("wb", buffering=0) as handle:
        try:
            while handle.write(b"x" * 512):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC


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
    assert "CANCELLED" in ends_badly(launcher)


@pytest.mark.slow
def test_a_database_that_is_down_stops_neither_submission_nor_looking(
    accounting: Path, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, accounting, [stage(array=2), stage("b", needs="a")])
    bench.start("sbatch:1").communicate(timeout=60)
    daemons.kill(controller_of(accounting), "slurmdbd")
    ends_well(bench.start(), 120)
    assert bench.ran() == ONCE and len(bench.jobs()) == 2


def test_a_shell_goes_into_the_stage_that_runs(cluster: Path, tmp_path: Path) -> None:
    """Not into the one that was submitted last: it still waits."""
    wait = "touch begun; while ! test -e end; do sleep 0.1; done"
    bench = Bench(tmp_path, cluster, [stage("a", then=wait), stage("b", needs="a")])
    launcher = bench.start()
    bench.wait(lambda: (bench.run.root / "begun").exists())
    bench.wait(lambda: bench.run.ledger.read("submitted.b.a1"))
    joined = rdtl("shell", "--site", "minislurm", "--into", str(bench.run.root), "--",
                  "sh", "-c", "echo in $RDTL_STAGE; touch end", cwd=cluster)  # fmt: skip
    assert joined.stdout == "in a\n", joined.stderr
    ends_well(launcher)
