"""What is refused with which code: mistakes as they are made at a terminal, or below it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import fetch, placement, runtime, sites, snapshot
from launcher.cli import app, common, data_collect
from launcher.core import dag_box, dag_processes, files
from launcher.core.dag_files import BoxRun
from launcher.core.errors import RdtlError, UsageError
from launcher.core.runs import RunDir
from launcher.dag import resolve
from launcher.dag.places import Place
from launcher.output import Output
from launcher.shell import find_stages
from launcher.ssh import Connection
from launcher.submit import local_backend
from tests.cli.run_rdtl import rdtl
from tests.recipes.writing import loaded
from tests.staging import servers


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("RDTL-S030", ["run", "--site", "far", "--", "true"]),
        ("RDTL-U010", ["run", "--site", "minislurm", "--", "true"]),
        ("RDTL-U014", ["report", "."]),
        ("RDTL-U019", ["pipeline", "demo", "--detach"]),
        ("RDTL-U029", ["data", "verify", ".", "--gripper-open", "3"]),
        ("RDTL-G026", ["stage", "verify", "nothing"]),
        ("RDTL-U032", ["run", "--site", "away", "--", "true"]),
        ("RDTL-U033", ["run", "--site", "local", "--reuse-only", "--", "true"]),
        ("RDTL-U034", ["run", "--runtime", "none", "--image", "rdt", "--", "true"]),
    ],
)
def test_a_mistake_at_the_terminal(code: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "configs/sites").mkdir(parents=True)
    (tmp_path / "configs/sites/far.yaml").write_text("{kind: slurm}\n")
    (tmp_path / "configs/sites/away.yaml").write_text("{kind: slurm, ssh: login}\n")
    own = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "/nowhere"}  # there is no sbatch
    done = rdtl(*words, cwd=tmp_path, env=own)
    said = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("error ")]
    assert (done.returncode, said) == (2, [f"{code}:"]), done.stderr


def test_scripts_can_be_looked_at_before_there_is_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own = {"kind": "slurm", "runtime": "apptainer", "max_memory_per_node_mb": 64_000}
    files.write_json(tmp_path / "configs/sites/own.yaml", own)
    with pytest.raises(UsageError, match="RDTL-C024") as refused:
        runtime.choose(sites.Site.model_validate(own), None, None, submits=False)
    words = "--dry-run --runtime none"
    assert refused.value.problem.fix.endswith(words)
    done = rdtl("train", "demo", "--site", "own", *words.split(), cwd=tmp_path)
    assert done.returncode == 0 and "#SBATCH" in done.stdout, done.stderr


def code_of(caught: pytest.ExceptionInfo[RdtlError]) -> str:
    return caught.value.problem.code


def test_a_tree_full_of_data_is_not_copied(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "small.py").write_text("1\n")
    with (tmp_path / "weights.bin").open("wb") as handle:
        handle.truncate(snapshot.MAX_WORK_BYTES)
    with pytest.raises(UsageError) as caught:
        snapshot.copy_work(tmp_path / "copy", tmp_path)
    assert code_of(caught) == "RDTL-U011" and "weights.bin" in caught.value.problem.where
    (tmp_path / ".gitignore").write_text("*.bin\ncopy\n")
    snapshot.copy_work(tmp_path / "copy", tmp_path)
    assert (tmp_path / "copy/small.py").exists()


def test_a_second_launcher_is_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_backend, "LOCK_WAIT_S", 0)
    held = local_backend.lock_run(RunDir(tmp_path))
    with pytest.raises(RdtlError) as caught:
        local_backend.lock_run(RunDir(tmp_path))
    assert code_of(caught) == "RDTL-U012"
    assert f"process {os.getpid()}" in caught.value.problem.where
    held.close()
    local_backend.lock_run(RunDir(tmp_path)).close()


@pytest.mark.parametrize("text", ["data:/data", "/data:data", "~/data"])
def test_a_bind_has_absolute_paths(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        placement.parse_bind(text)
    assert code_of(caught) == "RDTL-U016"


def test_no_shell_in_what_nobody_submitted(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_stages(tmp_path, "99")
    assert code_of(caught) == "RDTL-U017"


def test_results_of_two_runs_are_not_mixed(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.root.mkdir()
    with pytest.raises(UsageError, match="no results yet") as caught:
        fetch.fetch(run, tmp_path / "copy")
    assert code_of(caught) == "RDTL-U025"
    run.records.mkdir()
    for name in fetch.WHAT_RAN:
        (run.root / name).write_text("{}")
    fetch.fetch(run, tmp_path / "copy")
    with pytest.raises(UsageError, match="destination exists") as caught:
        fetch.fetch(run, tmp_path / "copy")
    assert code_of(caught) == "RDTL-U025"


def test_a_name_of_the_machine_is_no_name_of_a_recipe(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, {"one": {"argv": ["true"]}}, variables={"run": "elsewhere"})
    with pytest.raises(UsageError) as caught:
        resolve.resolve(recipe, "/run")
    assert code_of(caught) == "RDTL-U125"


def test_a_command_that_fails_where_a_recipe_runs() -> None:
    with pytest.raises(RdtlError) as caught:
        Place("here").run(["sh", "-c", "echo no python >&2; exit 3"])
    assert code_of(caught) == "RDTL-U134" and "no python" in caught.value.problem.where


def test_a_runner_that_does_not_end_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that hangs in the kernel: it hears no SIGTERM."""
    monkeypatch.setattr(dag_box, "STOP_WAIT_S", 0.3)
    deaf = "import signal; signal.signal(15, signal.SIG_IGN); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", deaf], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as runner:
        assert runner.stdout and runner.stdout.readline()
        process = vars(dag_processes.of(runner.pid))
        files.write_json(BoxRun(tmp_path).runner, {"process": process})
        with pytest.raises(RdtlError) as caught:
            dag_box._verb(dag_box._parser().parse_args(["stop", str(tmp_path)]))
        runner.send_signal(signal.SIGKILL)
    assert code_of(caught) == "RDTL-B059" and f"kill -9 {runner.pid}" in caught.value.problem.fix


def test_no_connection_and_a_command_that_fails_behind_one(tmp_path: Path) -> None:
    with servers.sshd(tmp_path / "sshd") as (server, words):
        options = (*words.split()[1:], "-p", str(server.port))
        reached = Connection("127.0.0.1", options, alone=True)
        assert reached.run(["echo", "two words"]) == "two words\n"
        with pytest.raises(RdtlError) as caught:
            reached.run(["sh", "-c", "exit 7"])
        assert code_of(caught) == "RDTL-S038" and "exit code 7" in caught.value.problem.what
    with pytest.raises(RdtlError) as caught:
        reached.run(["true"])
    assert code_of(caught) == "RDTL-S037"


def test_what_the_expert_cannot_do_is_told_with_the_task(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = {"what": "no success in 110 steps", "where": "initial state 0"}
    done = {"task_id": 8, "task": "bowl", "demos": 2, "steps": 180, "error": None}
    left = {"task_id": 4, "task": "drawer", "demos": 0, "steps": 0, "error": error}
    result = {"folder": "data/x", "demos": 2, "tasks": [done, left]}
    with pytest.raises(SystemExit) as ended:
        data_collect._show(Output(), result)
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert said.out.count("RDTL-D072") == 1 and "--task 4" in said.out
    data_collect._show(Output(), {**result, "tasks": [done]})
    assert "RDTL-D072" not in capsys.readouterr().out


def test_a_fault_of_the_launcher_is_called_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> sites.Site:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(sites, "load", broken)
    monkeypatch.setattr(sys, "argv", ["rdtl", "run", "--site", "local", "--", "true"])
    monkeypatch.setattr(common, "current", Output())
    monkeypatch.delenv("RDTL_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 1
    assert "RDTL-U099: unexpected ZeroDivisionError: by nothing" in capsys.readouterr().err
