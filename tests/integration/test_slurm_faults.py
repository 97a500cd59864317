"""Faults really made while a launcher submits and looks: no duplicate, no loss, no false word."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import diagnose
from launcher.core import runtimes
from tests.cluster import daemons, layout
from tests.integration.slurm_runs import (
    NEEDS,
    ONCE,
    Bench,
    controller_of,
    ends_badly,
    ends_well,
    stage,
)
from tests.submit.test_slurm_script import NASTY

pytestmark = NEEDS
KILLS = ["before:2", "sbatch:1", "after:3"]
MORE_KILLS = ["before:1", "after:2", "sbatch:2", "after:4", "after:5", "after:6"]
"""Events 1 to 3 are claim, sending, submitted of the first stage, 4 to 6 those of the second."""


@pytest.mark.parametrize(
    "moments",
    [pytest.param(KILLS, id="some"), pytest.param(MORE_KILLS, id="rest", marks=pytest.mark.slow)],
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


@pytest.mark.parametrize("went_in", [True, pytest.param(False, marks=pytest.mark.slow)])
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


@pytest.mark.slow
@pytest.mark.parametrize("away_s", [6, 60], ids=["6 s", "60 s"])
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
        said = heard(submitting, "does not answer")  # it begins late on a slow machine
    finally:
        daemons.restart_controller(machine)
    said += ends_well(submitting)
    assert "does not answer" in said and "answers again" in said
    assert submits.ran() == {"a.0": 1, "a.1": 1} and len(submits.jobs()) == 1
    (looks.run.root / "go").touch()
    ends_well(looking)
    assert looks.ran() == {"a.0": 1} and len(looks.jobs()) == 1


def heard(launcher: subprocess.Popen[str], words: str) -> str:
    """What it says until ``words`` are among it."""
    assert launcher.stderr is not None
    said = ""
    while words not in said:
        line = launcher.stderr.readline()
        assert line, said
        said += line
    return said


def wait_for_saved_state(machine: layout.Cluster, bench: Bench) -> None:
    """The controller saves changes every five seconds; what is younger a crash forgets.

    It may just have saved, and without a change it would not do so again.
    """
    started = time.time()
    (job,) = bench.jobs()
    bench.slurm("scontrol", "update", f"jobid={job}", "comment=changed")
    bench.wait(lambda: (machine.root / "state" / "job_state").stat().st_mtime > started, 20)


@pytest.mark.slow
def test_half_an_array_cancelled_only_that_half_runs_again(cluster: Path, tmp_path: Path) -> None:
    wait = "while ! test -e go; do sleep 0.1; done"
    bench = Bench(tmp_path, cluster, [stage(array=6, then=wait)], tasks_at_once=3)
    launcher = bench.start()
    bench.wait(lambda: len(bench.ran()) == 3)
    (job,) = bench.jobs()
    bench.slurm("scancel", f"{job}_[3-5]")
    (bench.run.root / "go").touch()
    assert "RDTL-S036" in ends_badly(launcher)
    ends_well(bench.start())
    assert bench.ran() == {f"a.{index}": 1 for index in range(6)}
    assert (bench.run.ledger.read("claim.a.a2") or {})["indices"] == [3, 4, 5]


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
