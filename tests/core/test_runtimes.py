"""What is started for a container: text only; tests/images runs it for real."""

from __future__ import annotations

import csv
import signal
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.core import runtime_errors, runtimes
from launcher.core.node_facts import MountFacts
from launcher.core.runtimes import Bind, Container

USER = MountFacts("/usr/bin/apptainer", False, False, True, False)
SIF = Container(
    "apptainer", "/images/a.sif", "all-cpu", "c0ffee", "1", "amd64",
    binds=(Bind("/runs/r", "/runs/r", read_only=False), Bind("/runs/r/code", "/runs/r/code")),
)  # fmt: skip
OUTER = {"PATH": "/bin", "LD_PRELOAD": "x.so", "PYTHONPATH": "/evil", "SLURM_PROCID": "1",
         "SLURM_ARRAY_TASK_ID": "3", "NCCL_DEBUG": "INFO", "APPTAINER_BIND": "/etc",
         "SINGULARITYENV_X": "y", "SLURMD_NODENAME": "n2", "MINE": "m"}  # fmt: skip


def wrapped(container: Container, facts: MountFacts = USER) -> runtimes.Launch:
    variables = runtimes.inside(OUTER, {"RANK": "0", "TOKEN": "s3cret"}, ("MINE",))
    return runtimes.wrap(container, ("python", "-m", "jobs.train"), variables, OUTER, facts,
                         working_directory="/runs/r", scratch="/tmp/s", tag="rdtl-t")  # fmt: skip


def test_only_the_pass_list_gets_in() -> None:
    got = runtimes.inside(OUTER, {"RANK": "0", "PATH": "/host"}, ("MINE",))
    assert got == {"SLURM_PROCID": "1", "NCCL_DEBUG": "INFO", "MINE": "m", "RANK": "0"}


def test_apptainer_is_started_like_this() -> None:
    launch = wrapped(SIF)
    assert launch.argv == (
        "apptainer", "-q", "exec", "--cleanenv", "--no-eval", "--pid", "--no-mount",
        "tmp,cwd", "--home", "/tmp/s/home:/home/rdtl", "--pwd", "/runs/r",
        "--mount", "type=bind,src=/tmp/s/tmp,dst=/tmp",
        "--mount", "type=bind,src=/runs/r,dst=/runs/r",
        "--mount", "type=bind,src=/runs/r/code,dst=/runs/r/code,ro",
        "/images/a.sif", "python", "-m", "jobs.train",
    )  # fmt: skip
    assert launch.environment["APPTAINERENV_TOKEN"] == "s3cret"
    assert not {"APPTAINER_BIND", "SINGULARITYENV_X"} & launch.environment.keys()


def test_docker_is_started_like_this() -> None:
    image = replace(SIF, runtime="docker", image="sha256:1", program="docker", engine="unix:///d")
    launch = wrapped(image)
    words = list(launch.argv)
    assert words[:5] == ["docker", "run", "--rm", "--init", "--read-only"]
    assert words[-5:] == ["--entrypoint", "python", "sha256:1", "-m", "jobs.train"]
    assert "type=bind,src=/runs/r/code,dst=/runs/r/code,ro" in words
    assert words[words.index("TOKEN") - 1] == "-e"
    assert launch.environment["DOCKER_HOST"] == "unix:///d"


def test_pyxis_stands_on_the_srun_line() -> None:
    image = replace(SIF, runtime="pyxis", image="/images/a.sqsh")
    assert wrapped(image).argv == (
        "srun", "--overlap", "--nodes=1", "--ntasks=1", "--nodelist=n2",
        "--container-image=/images/a.sqsh",
        "--container-mounts=/runs/r:/runs/r,/runs/r/code:/runs/r/code:ro",
        "--container-workdir=/runs/r", "--no-container-mount-home",
        "--container-env=MINE,NCCL_DEBUG,RANK,SLURM_PROCID,TOKEN", "--export=ALL",
        "python", "-m", "jobs.train",
    )  # fmt: skip


@pytest.mark.parametrize("runtime", ["apptainer", "docker", "pyxis"])
def test_no_value_of_the_environment_is_in_an_argv(runtime: str) -> None:
    launch = wrapped(replace(SIF, runtime=runtime))  # type: ignore[arg-type]
    assert "s3cret" not in " ".join(launch.argv)
    assert "s3cret" in launch.environment.values()


@pytest.mark.parametrize(
    ("facts", "options"),
    [
        (USER, ()),
        (replace(USER, fuse=False), ("--unsquash",)),
        (replace(USER, fuse=False, setuid=True), ()),
        (replace(USER, root=True), ("--no-privs",)),
        (replace(USER, root=True, can_raise_limits=True), ()),
    ],
)
def test_a_node_gets_the_way_that_works_there(facts: MountFacts, options: tuple[str, ...]) -> None:
    assert runtimes.mount_options(facts) == options


@given(st.text(st.characters(exclude_characters="\0\r\n", codec="utf-8"), min_size=1))
def test_any_path_survives_the_mount_syntax(path: str) -> None:
    (fields,) = csv.reader([runtimes.mount(Bind(path, "/d"))], strict=True)
    assert fields == ["type=bind", f"src={path}", "dst=/d", "ro"]


def test_activation_comes_first_and_the_shell_becomes_the_program() -> None:
    assert runtimes.activated(("python", "a b"), "module load x") == (
        "bash", "-ec", 'module load x\nexec "$@"', "rdtl", "python", "a b",
    )  # fmt: skip
    assert runtimes.activated(("python",), "") == ("python",)


SLOW = "import os, signal, time; print('up', flush=True); time.sleep(1); " \
       "signal.signal(signal.SIGUSR2, lambda *_: (print('saved', flush=True), os._exit(0))); " \
       "print('ready', flush=True); time.sleep(60)"  # fmt: skip


@pytest.mark.parametrize("patient", [True, False])
def test_a_signal_before_the_program_has_its_handler(patient: bool) -> None:
    """Two come: one while it imports, one afterwards. Only the second is for the program."""
    argv = ("python3", "-c", SLOW)
    with subprocess.Popen(
        runtimes.patient(argv) if patient else argv, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGUSR2)
        said = process.stdout.readline()
        if patient:
            process.send_signal(signal.SIGUSR2)
        rest = process.stdout.read()
    ended = (process.returncode, said, rest)
    assert ended == ((0, "ready\n", "saved\n") if patient else (-signal.SIGUSR2, "", ""))


def test_a_program_may_end_with_255_by_itself() -> None:
    assert runtime_errors.explain(SIF, 255, "my own words\n") is None
    assert runtime_errors.explain(SIF, 1, "FATAL: something else\n") is None
    error = runtime_errors.explain(SIF, 255, "FATAL:   never heard of\n")
    assert error and error.problem.code == "RDTL-C023"
