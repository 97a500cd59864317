"""What a job may count on in a container, whoever started it: variables, files, signals, codes."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from launcher.core.runtime_errors import explain
from launcher.core.runtimes import HOME_INSIDE, Bind
from tests.cluster.processes import wait_until
from tests.images import ordinary_user, small, ways
from tests.images.ways import Way

AWKWARD = {
    "COMMA": "a,b=c d,e",
    "QUOTES": "\"double\" 'single' \\ back",
    "SHELL": "$HOME ${PATH} $(id -u) `id -u` ; exit 3 & | > /tmp/x # *",
    "LINES": "first\nsecond\n\tthird\n",
    "EMPTY": "",
    "BLANKS": "  leading and trailing  ",
    "UNICODE": "Gruß 机器人 \u00a0",
    "PERCENT": "%s %n {} {{x}} !!",
}
# Counts what arrives, then ends with 85 (USR2) or 86 (TERM) and says how often each came.
COUNT_SIGNALS = """
$| = 1; my (%got);
for my $s (qw(USR2 TERM)) { $SIG{$s} = sub { $got{$s}++ } }
print "ready\\n";
for (1 .. 300) { last if %got; select undef, undef, undef, 0.1 }
select undef, undef, undef, 0.5;
print join(" ", map { "$_=$got{$_}" } sort keys %got), "\\n";
exit($got{USR2} ? 85 : $got{TERM} ? 86 : 3);
"""


@pytest.fixture(scope="module", params=["apptainer-root", "apptainer-user", "docker"])
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    kind = request.param.split("-")[0]
    if reason := small.unavailable(kind):
        pytest.skip(reason)
    with ExitStack() as stack:
        folder = stack.enter_context(ways.open_folder())
        if kind == "docker":
            image = small.docker_image()
            yield Way(image, ways.facts_of("apptainer"), folder)
            return
        user = None
        if request.param == "apptainer-user":
            if reason := ordinary_user.unavailable():
                pytest.skip(reason)
            user = stack.enter_context(ordinary_user.ordinary_user())
        image = request.getfixturevalue("small_sif")
        yield Way(image, ways.facts_of(image.program, user=user), folder, user)


def environment(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    return dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)


def test_values_arrive_byte_for_byte(way: Way) -> None:
    seen = environment(way.run("env", "-0", variables=AWKWARD))
    assert {name: seen.get(name) for name in AWKWARD} == AWKWARD


def test_only_the_pass_list_of_the_caller_arrives(way: Way) -> None:
    passed = {"SLURM_PROCID": "3", "SLURM_JOB_ID": "77", "NCCL_DEBUG": "INFO", "RDTL_X": "y"}
    stray = {"SLURM_ARRAY_TASK_ID": "5", "PYTHONPATH": "/evil", "MINE": "m", "CONDA_PREFIX": "/c"}
    seen = environment(way.run("env", "-0", variables={"RANK": "3"}, outer={**stray, **passed}))
    assert {name: seen.get(name) for name in (*passed, "RANK")} == {**passed, "RANK": "3"}
    assert not set(stray) & set(seen)


def test_settings_of_the_user_for_apptainer_have_no_effect(way: Way) -> None:
    stray = {
        "APPTAINER_BIND": "/proc:/mnt/stray",
        "SINGULARITY_BIND": "/proc:/mnt/stray",
        "APPTAINER_NO_MOUNT": "proc",
        "APPTAINERENV_STRAY": "1",
        "SINGULARITYENV_STRAY": "1",
    }
    done = way.run("sh", "-c", "ls /mnt; cat /proc/self/comm; echo $STRAY", outer=stray)
    assert (done.returncode, done.stdout) == (0, "cat\n\n"), done.stderr


def test_paths_with_commas_and_colons_are_bound_as_they_are(way: Way) -> None:
    source = way.folder / 'data, 1:2 "x" ü'
    source.mkdir(mode=0o755, exist_ok=True)
    (source / "file").write_text("inside")
    target = "/mnt/in, 1:2 ü"
    done = way.run("cat", f"{target}/file", binds=(Bind(str(source), target),))
    assert (done.returncode, done.stdout) == (0, "inside"), done.stderr


def test_a_read_only_bind_cannot_be_written_and_another_one_can(way: Way) -> None:
    for name in ("data", "run"):
        (way.folder / name).mkdir(exist_ok=True)
        (way.folder / name).chmod(0o777)
    binds = (
        Bind(str(way.folder / "data"), "/mnt/data"),
        Bind(str(way.folder / "run"), "/mnt/run", read_only=False),
    )
    done = way.run("touch", "/mnt/data/new", binds=binds)
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert way.run("touch", "/mnt/run/new", binds=binds).returncode == 0
    assert [p.name for p in (way.folder / "data").iterdir()] == []
    assert [p.name for p in (way.folder / "run").iterdir()] == ["new"]


def test_home_and_tmp_are_private_and_writable(way: Way) -> None:
    outside = Path(tempfile.mkdtemp(prefix="rdtl-outside-", dir="/tmp"))
    try:
        done = way.run("sh", "-c", "touch ~/a /tmp/b && echo $HOME && ls ~ /tmp")
    finally:
        outside.rmdir()
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [HOME_INSIDE, "/home/rdtl:", "a", "/tmp:", "b"]


def test_a_program_that_does_not_exist_is_the_runtimes_failure(way: Way) -> None:
    done = way.run("/opt/venv/bin/python", "-V")
    error = explain(way.container, done.returncode, done.stdout + done.stderr)
    assert error is not None, done
    assert error.problem.code == "RDTL-C023"
    assert "/opt/venv/bin/python" in error.problem.where


def test_a_bind_source_that_does_not_exist_is_named(way: Way) -> None:
    done = way.run("true", binds=(Bind("/nowhere/data", "/mnt/data"),))
    error = explain(way.container, done.returncode, done.stdout + done.stderr)
    assert error is not None, done
    assert (error.problem.code, "/nowhere/data" in error.problem.where) == ("RDTL-C031", True)


@pytest.mark.parametrize("way", ["apptainer-root", "apptainer-user"], indirect=True)
def test_a_killed_start_takes_its_program_along(way: Way) -> None:
    """Docker's programs belong to the engine: there the next attempt removes them by name."""
    (way.folder / "beats").mkdir(exist_ok=True)
    (way.folder / "beats").chmod(0o777)
    bind = Bind(str(way.folder / "beats"), "/mnt/beats", read_only=False)
    script = "while :; do date +%s%N >/mnt/beats/last; sleep 0.05; done"
    beat = way.folder / "beats" / "last"
    with way.popen("sh", "-c", script, binds=(bind,)) as process:
        wait_until(beat.exists, 30, "first sign of life")
        process.kill()
    time.sleep(0.3)
    last = beat.read_text()
    time.sleep(0.5)
    assert beat.read_text() == last


@pytest.mark.parametrize(("name", "code"), [("USR2", 85), ("TERM", 86)])
def test_a_signal_reaches_the_program_once(way: Way, name: str, code: int) -> None:
    with way.popen("perl", "-e", COUNT_SIGNALS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.Signals[f"SIG{name}"])
        words, _ = process.communicate(timeout=60)
    assert (words, process.returncode) == (f"{name}=1\n", code)


@pytest.mark.parametrize("code", [0, 1, 75, 85, 86, 137, 255])
def test_exit_codes_come_back(way: Way, code: int) -> None:
    done = way.run("sh", "-c", f"exit {code}")
    assert done.returncode == code
    assert explain(way.container, code, done.stdout + done.stderr) is None


def test_a_program_killed_inside_counts_as_killed(way: Way) -> None:
    assert way.run("sh", "-c", "kill -KILL $$").returncode == 137
