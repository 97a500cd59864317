"""``rdtl doctor`` as a person and a program meet it, and its quick part before every run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.run_rdtl import rdtl


def checks(*words: str, cwd: Path, status: int = 0, **environment: str) -> dict[str, Any]:
    """What ``rdtl doctor --json`` says."""
    done = rdtl("doctor", *words, "--json", cwd=cwd, env=environment)
    assert done.returncode == status, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.sim
def test_the_demo_s_set_up_has_nothing_that_is_not_well(tmp_path: Path) -> None:
    found = checks("demo/default", cwd=tmp_path)["checks"]
    assert {one["status"] for one in found} == {"ok", "skipped"}
    looked = {one["name"] for one in found if one["status"] == "ok"}
    assert looked >= {"versions", "simulator", "memory", "disk", "training", "horizon", "secrets"}


def test_what_is_wrong_ends_with_status_3_and_what_is_mended_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ntrain: {}\ndataset: {sets: [{path: nowhere}]}\n"
        "upload: {uri: 'rclone:nobody:x'}\n"
    )
    (tmp_path / "configs/sites").mkdir(parents=True)
    # In an image: this environment needs no simulator then, so that the test is quick.
    (tmp_path / "configs/sites/box.yaml").write_text(
        f"kind: local\nruntime: apptainer\nimage: {tmp_path}/gone.sif\nassets: {tmp_path}/assets\n"
    )
    words = ("mine.yaml", "--site", "box", "--fix")
    found = checks(*words, cwd=tmp_path, status=3)
    wrong = {one["code"] for one in found["checks"] if one["status"] == "fail"}
    assert wrong >= {"RDTL-D014", "RDTL-G014"}
    assert wrong & {"RDTL-C024", "RDTL-C001"}
    assert [(one["where"], one["before"], one["after"]) for one in found["fixed"]] == [
        (str(tmp_path / "runs"), "missing", "made"),
        (str(tmp_path / "assets"), "missing", "made"),
    ]
    assert checks(*words, cwd=tmp_path, status=3)["fixed"] == []


def test_the_list_says_what_runs_before_every_run(tmp_path: Path) -> None:
    listed = json.loads(rdtl("doctor", "--list", "--json", cwd=tmp_path).stdout)
    assert {one["area"] for one in listed} == {
        "machine", "site", "config", "data", "checkpoint", "image", "secrets", "network",
    }  # fmt: skip
    assert {one["name"] for one in listed if one["quick"]} >= {"disk", "places", "secrets"}


def train(folder: Path, text: str, *words: str) -> Any:
    (folder / "mine.yaml").write_text(f"name: mine\n{text}")
    return rdtl("train", "mine.yaml", *words, cwd=folder)


def test_a_training_that_would_be_lost_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    done = train(tmp_path, "train: {}\ndataset: {sets: [{path: nowhere}]}\n")
    assert done.returncode == 3
    assert "RDTL-D014" in done.stderr and f"{tmp_path}/nowhere" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_what_is_doubtful_is_said_once_and_not_among_results(tmp_path: Path) -> None:
    text = "collect: {}\ntrain: {steps: 9000, warmup_steps: 9}\n"
    done = train(tmp_path, text, "--dry-run")
    assert done.returncode == 0
    assert done.stderr.count("RDTL-T005") == 1
    assert "RDTL-T005" not in done.stdout


def test_a_runs_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    done = train(tmp_path, "collect: {}\ntrain: {}\n")
    assert (done.returncode, "RDTL-G005" in done.stderr) == (3, True), done.stderr
    done = rdtl("run", "--", "true", cwd=tmp_path)
    assert (done.returncode, "RDTL-G005" in done.stderr) == (3, True), done.stderr
    (tmp_path / "mine-local").write_text("a file")
    done = rdtl("run", "--runs-dir", ".", "--name", "mine", "--", "true", cwd=tmp_path)
    assert (done.returncode, "RDTL-G018" in done.stderr) == (1, True), done.stderr


def test_a_recipe_with_a_mistake_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nabout: a mistake\nsteps:\n"
        "  one: {about: it, script: 'echo hf_CanaryCanaryCanaryCanaryCanary1234'}\n"
    )
    done = rdtl("recipe", "run", "mine.yaml", cwd=tmp_path, env={"HOME": str(tmp_path)})
    assert done.returncode == 3, done.stderr
    assert "RDTL-W003" in done.stderr and "Canary" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def site(folder: Path, text: str) -> None:
    (folder / "configs/sites").mkdir(parents=True, exist_ok=True)
    (folder / "configs/sites/box.yaml").write_text(f"kind: local\n{text}")


IN_THE_OPEN = "environment: {HF_TOKEN: in-the-open}\n"


def test_a_recipe_that_its_site_s_checks_refuse_lays_down_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "name: mine\nabout: nothing\nsecrets: {HF_TOKEN: of the hub}\nsteps:\n"
        "  one: {about: it, script: 'true', secrets: [HF_TOKEN]}\n"
    )
    site(tmp_path, IN_THE_OPEN)
    environment = {"HOME": str(tmp_path), "XDG_STATE_HOME": f"{tmp_path}/state", "HF_TOKEN": "abc"}
    done = rdtl("recipe", "run", "mine.yaml", "--site", "box", cwd=tmp_path, env=environment)
    assert (done.returncode, "RDTL-W002" in done.stderr) == (3, True), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["configs", "mine.yaml"]


@pytest.mark.slow
def test_a_run_that_exists_is_shown_whatever_became_of_the_machine(tmp_path: Path) -> None:
    site(tmp_path, "")
    words = ("run", "--site", "box", "--name", "one", "--", "echo", "hello")
    assert rdtl(*words, cwd=tmp_path).returncode == 0
    site(tmp_path, IN_THE_OPEN)
    again = rdtl(*words, cwd=tmp_path)
    assert (again.returncode, "hello" in again.stdout) == (0, True), again.stderr
    assert "RDTL-W002" in again.stderr
    new = rdtl("run", "--site", "box", "--name", "two", "--", "echo", "hello", cwd=tmp_path)
    assert (new.returncode, "RDTL-W002" in new.stderr) == (3, True), new.stderr


@pytest.mark.slow
@pytest.mark.slurm
def test_a_shell_inside_a_job_is_noticed_and_submits_all_the_same(cluster: Path) -> None:
    """`rdtl doctor`, and then `rdtl run`, really started by srun on a compute node."""
    import os
    import subprocess
    import sys

    import yaml

    site = yaml.safe_load((cluster / "configs/sites/minislurm.yaml").read_text())
    environment = {**os.environ, **site["environment"]}
    inside = ["srun", "--nodes=1", "--ntasks=1", f"--chdir={cluster}", "--mem=1500", "--time=5"]
    python = [sys.executable, "-P", "-m", "launcher"]
    site_of = ["--site", "minislurm"]

    def said(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*inside, *python, *words], env=environment, capture_output=True,
                              text=True, timeout=200, check=False)  # fmt: skip

    found = json.loads(said("doctor", "--json").stdout)
    (told,) = [one for one in found["checks"] if one["code"] == "RDTL-S001"]
    assert "SLURM_" in told["evidence"], "the shell of a job is told from another"
    inner = said("run", *site_of, "--name", "inner", "--", "sh", "-c", "echo job $SLURM_JOB_ID")
    assert inner.returncode == 0, inner.stderr
    assert "job " in inner.stdout
