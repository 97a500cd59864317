"""What a user meets: help, mistakes, plain commands on this machine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from launcher import assets, config, placement, presets, sites
from launcher.core.errors import UsageError
from launcher.core.runs import RunDir
from launcher.schema import RunConfig
from tests.cli.run_rdtl import rdtl

ROOT = Path(__file__).parent.parent.parent


def test_help_lists_what_exists_and_nothing_else(tmp_path: Path) -> None:
    done = rdtl("--help", cwd=tmp_path, env={"COLUMNS": "80"})
    assert done.returncode == 0
    told = done.stdout.split("Commands:")[1]
    assert "..." not in told, "the words that tell commands apart are cut"
    commands = {line.split()[0] for line in told.splitlines() if line[:3].strip()}
    assert commands == {
        "checkpoint", "cloud", "data", "demo", "diagnose", "doctor", "evaluate", "hostfile",
        "image", "pipeline", "recipe", "report", "run", "runs", "serve", "shell", "stage", "sweep",
        "train",
    }  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        "checkpoint",
        "demo",
        "run",
        "shell",
        "sweep",
        "train",
        "evaluate",
        "report",
        "doctor",
        "hostfile",
    ],
)
def test_every_command_explains_itself(command: str, tmp_path: Path) -> None:
    done = rdtl(command, "--help", cwd=tmp_path, env={"COLUMNS": "80"})
    assert done.returncode == 0
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_an_unknown_key_names_file_key_and_nearest_valid_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ntrain: {effectiv_batch: 32}\ncollect: {}\n")
    done = rdtl("train", str(path), cwd=tmp_path)
    assert done.returncode == 2
    assert "RDTL-U001" in done.stderr
    assert str(path) in done.stderr
    assert "train.effectiv_batch" in done.stderr
    assert "train.effective_batch" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("name: [", "RDTL-U003"),
        ("- a\n- b", "RDTL-U003"),
        ("name: x", "RDTL-U005"),
        ("name: X Y\ntrain: {}", "RDTL-U001"),
        ("name: x\ntrain: {micro_batch: 3}", "RDTL-T060"),
        ("name: x\ntrain: {steps: 40, epochs: 2}", "RDTL-T061"),
        ("name: x\ntrain: {steps: 40, warmup_steps: 41}", "RDTL-T062"),
        ("name: x\ntrain: {steps: -1}", "RDTL-U001"),
        ("name: x\ntrain: {steps: 40}\ntrain: {seed: 2}", "RDTL-U003"),
        ("name: x\ntrain: {}\ndataset: {path: x_demo.hdf5}", "RDTL-U001"),
        ("name: x\ntrain: {}\n", "RDTL-U005"),
    ],
)
def test_bad_configurations_are_usage_errors(text: str, code: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    done = rdtl("train", str(path), "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == code
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "settings", "said"),
    [
        ("name: x\ntrain: {}", ["steps=800"], "the nearest valid key is train.steps"),
        ("name: x\ntrain:\n  a: 1 {b: 2}", [], "line 3, column 10: mapping values are not"),
        ("name: x\ntrain: {}\ntrain: {}", [], "line 3, column 1: key train stands in line 2 too"),
        ("name: x\ntrain: {}", ["dataset.sets=mine"], "must stand there, such as [{path: mine}]"),
        ("name: x\ntrain: {}", ["dataset.sets=[mine]"], "must stand there, such as {path: mine}"),
        ("name: x", ["evaluate.policies=zero"], "a list must stand there, such as [zero]"),
        ("name: x", ["dataset.path=/a"], "nearest valid key is dataset.sets=[{path: …}]"),
        ("name: x", ["dataset.sets.path=/a"], "a list must stand there, such as [{path: /a}]"),
        ("name: x", ["dataset.sets.0.path=/a"], "a list must stand there, such as [{path: …}]"),
        ("name: x", ["evaluate.policies.0=zero"], "a list must stand there, such as […]"),
        ("name: x\nevaluate: {policies: [server]}", [], "evaluate: policies names `server`"),
    ],
)
def test_a_mistake_is_said_with_its_remedy(
    text: str, settings: list[str], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        config.load_run_config(path, settings, [])
    problem = error.value.problem
    assert said in f"{problem.what} {problem.where}"
    assert problem.fix
    assert problem.where.endswith("".join(f" --set {one}" for one in settings))


@pytest.mark.parametrize(
    ("setting", "fix"),
    [
        ("dataset.sets.path=/a", "--set 'dataset.sets=[{path: …}]'"),
        ("dataset.sets.0=/a", "--set 'dataset.sets=[…]'"),
        ("name.first=y", "--set 'name=…'"),
    ],
)
def test_what_cannot_be_set_below_a_value_is_set_whole(setting: str, fix: str) -> None:
    data = {"name": "x", "dataset": {"sets": [{"path": "mine"}]}}
    with pytest.raises(UsageError, match="RDTL-U004") as error:
        config.apply_settings(data, [setting])
    assert fix in error.value.problem.fix


def test_merged_keys_may_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "deep: {a: &base {x: 1, y: 1}, b: &more {<<: *base, x: 2}}\n"
        "top: {<<: *more, y: 3}\nboth: {<<: *base, <<: {z: 4}}\n"
    )
    read = config.read_yaml(path)
    assert read["deep"]["b"] == {"x": 2, "y": 1}
    assert read["top"] == {"x": 2, "y": 3}
    assert read["both"] == {"x": 1, "y": 1, "z": 4}
    with pytest.raises(UsageError, match="RDTL-U003") as error:
        config.apply_settings(read, ["both={x: 1, x: 2}"])
    assert "column 8: key x stands in line 1 too" in error.value.problem.where


@pytest.mark.parametrize("command", [["demo"], ["recipe", "plan", "rdt/finetune"]])
def test_a_setting_without_its_sign_is_named(command: list[str], tmp_path: Path) -> None:
    done = rdtl(*command, "--set", "train.steps", "800", cwd=tmp_path)
    assert done.returncode == 2
    assert "RDTL-U004: --set needs KEY=VALUE, not 'train.steps'" in done.stderr


def test_a_file_that_is_not_there_is_no_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        config.find("train", str(tmp_path / "mine.yaml"))
    assert error.value.problem.what == f"there is no file {tmp_path / 'mine.yaml'}"
    with pytest.raises(UsageError) as error:
        config.find("train", "dmeo")
    places = error.value.problem.where.split(", ")
    assert len(places) == len(set(places))
    assert "demo" in error.value.problem.fix


def test_a_dry_run_says_what_would_be_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: x\ntrain: {}\ndataset: {sets: [{path: nowhere}]}")
    done = rdtl("train", str(path), "--dry-run", cwd=tmp_path)
    assert done.returncode == 0
    assert "without --dry-run it would be refused now: RDTL-D014" in done.stderr
    fine = rdtl("train", "demo", "--dry-run", cwd=tmp_path)
    assert "refused" not in fine.stderr


def test_mistakes_in_a_list_of_data_sets_are_named_by_place() -> None:
    sets = [{"path": "a"}, {"path": "b", "wieght": 2}, {"path": "c", "weight": 0}, {"demos": [0]}]
    with pytest.raises(UsageError) as error:
        config.validate(RunConfig, {"name": "x", "dataset": {"sets": sets}}, "mine.yaml")
    what = error.value.problem.what
    assert "dataset.sets.1.wieght; the nearest valid key is dataset.sets.1.weight" in what
    assert "dataset.sets.2.weight: Input should be greater than 0" in what
    assert "dataset.sets.3.path: Field required" in what


def test_data_sets_are_found_from_here_seen_by_jobs_and_copied_when_named_by_uri(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: x\ntrain: {}\n"
        "dataset: {sets: [{path: near/set}, {path: 'file:///far/set', demos: [0], weight: 2},"
        " {path: 'rclone:gg1:far/set'}]}\n"
    )
    loaded = config.load_run_config(path, [], ["train"])
    inside, (asset, other) = assets.split(loaded, RunDir(tmp_path / "run"))
    copy = tmp_path / "run/assets/dataset.sets.1.path/set"
    far = tmp_path / "run/assets/dataset.sets.2.path/set"
    paths = [entry.path for entry in inside.dataset.sets]
    assert paths == [str(tmp_path / "near/set"), str(copy), str(far)]
    assert (other.uri, other.target) == ("rclone:gg1:far/set", str(far))
    assert (inside.dataset.sets[1].demos, inside.dataset.sets[1].weight) == ([0], 2)
    assert (asset.uri, asset.target) == ("file:///far/set", str(copy))
    assert placement.named_files(inside) == [tmp_path / "near/set", copy, far]
    evaluated = inside.model_copy(update={"train": None})
    assert placement.named_files(evaluated) == [], "nobody reads them then"


def test_checkpoints_and_encoders_may_be_named_by_uri_wherever_a_path_may_stand(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: x\ncollect: {}\n"
        "train: {checkpoint: 'hf://models/o/net', vision: 'gs://b/siglip', language: 's3://b/t5'}\n"
        "evaluate: {checkpoint: 'rclone:gg1:net', vision: 'gs://b/siglip', language: words}\n"
        "sweep: {checkpoints: ['gs://b/run/one', two, 'owner/three']}\n"
        "upload: {uri: 'rclone:gg1:results'}\n"
    )
    run = RunDir(tmp_path / "run")
    loaded = config.load_run_config(path, [], ["train"])
    inside, staged = assets.split(loaded, run)
    named = {asset.key: asset.uri for asset in staged}
    assert named == {
        "train.checkpoint": "hf://models/o/net",
        "train.vision": "gs://b/siglip",
        "train.language": "s3://b/t5",
        "evaluate.checkpoint": "rclone:gg1:net",
        "evaluate.vision": "gs://b/siglip",
        "sweep.checkpoints.0": "gs://b/run/one",
    }
    folder = run.root / "assets"
    assert inside.train and inside.evaluate and inside.sweep
    assert inside.train.checkpoint == str(folder / "train.checkpoint/net")
    assert inside.train.language == str(folder / "train.language/t5")
    assert inside.evaluate.vision == str(folder / "evaluate.vision/siglip")
    assert inside.evaluate.language == str(Path("words").resolve())
    first, *others = inside.sweep.checkpoints
    assert first == str(folder / "sweep.checkpoints.0/one")
    assert others == [str(Path("two").resolve()), "owner/three"]
    plan = presets.pipeline(loaded, "local", sites.load("local"), run, None)
    needs = {stage.name: stage.needs for stage in plan.stages}
    assert needs["dataset"] == ("collect", "stage")  # so training waits for its checkpoint, too
    beside = {stage.name for stage in plan.stages if stage.beside}
    assert beside == {"train", "evaluate", "videos", "report"}
    inside = loaded.model_copy(update={"upload": None})
    alone = presets.pipeline(inside, "local", sites.load("local"), run, None)
    more = {s.name for s in plan.stages if s.memory_mb > alone.stage(s.name).memory_mb}
    assert more == beside


def test_settings_reach_any_depth_and_are_read_as_yaml() -> None:
    data = config.apply_settings({"a": {"b": 1}}, ["a.b=2", "a.c.d=[1, 2]", "e=null"])
    assert data == {"a": {"b": 2, "c": {"d": [1, 2]}}, "e": None}
    with pytest.raises(UsageError, match="below it"):
        config.apply_settings({"a": 1}, ["a.b=2"])


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("[dte]*/*.yaml")), ids=str)
def test_every_shipped_configuration_loads(path: Path) -> None:
    loaded = config.load_run_config(path, [], [])
    assert RunConfig.model_validate(yaml.safe_load(config.to_yaml(loaded))) == loaded


def test_run_prints_what_the_command_prints_and_fails_when_it_fails(tmp_path: Path) -> None:
    good = rdtl("run", "--", "sh", "-c", "echo out; echo err >&2", cwd=tmp_path)
    assert (good.returncode, good.stdout.split()) == (0, ["out", "err"])
    assert "no files of a git tree around" in good.stderr
    bad = rdtl("run", "--", "sh", "-c", "echo last words; exit 7", cwd=tmp_path)
    assert bad.returncode == 1
    assert "exit code 7" in bad.stderr
    assert "last words" in bad.stdout


def test_arguments_arrive_byte_for_byte(tmp_path: Path) -> None:
    values = [
        "plain",
        "two words",
        "a'b",
        'a"b',
        "x`id`y",
        "$(id)",
        "l1\nl2",
        "-x",
        "é",
        "a,b",
        "end",
    ]
    done = rdtl("run", "--", "printf", "%s|", *values, cwd=tmp_path)
    assert done.stdout == "|".join(values) + "|\n"


def test_run_uses_a_copy_of_the_git_tree_dirty_files_included(tmp_path: Path) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(tmp_path)]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / ".gitignore").write_text("runs\nsecret\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "code.py").write_text("print('committed')")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    (tmp_path / "sub" / "code.py").write_text("print('dirty')")
    (tmp_path / "secret").write_text("ignored")
    done = rdtl(
        "run",
        "--runs-dir",
        str(tmp_path / "runs"),
        "--",
        "sh",
        "-c",
        "cat code.py; ls ..; pwd",
        cwd=tmp_path / "sub",
    )
    assert "dirty" in done.stdout
    assert "secret" not in done.stdout
    assert str(tmp_path / "runs") in done.stdout


def test_a_directory_called_jobs_changes_nothing(tmp_path: Path) -> None:
    for name in ("jobs", "launcher", "rdt"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('decoy imported')")
    done = rdtl("run", "--", "echo", "fine", cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "fine")


def test_gpus_that_a_site_has_not_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    done = rdtl("run", "--gpus", "2", "--", "true", cwd=tmp_path)
    assert done.returncode == 2
    assert "RDTL-U007" in done.stderr
    done = rdtl("run", "--nodes", "2", "--", "true", cwd=tmp_path)
    assert done.returncode == 2


def test_another_configuration_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    first = rdtl("run", "--name", "a", "--", "true", cwd=tmp_path)
    assert first.returncode == 0
    again = rdtl("run", "--name", "a", "--", "true", cwd=tmp_path)
    assert "done earlier" in again.stderr
    other = rdtl("run", "--name", "a", "--", "false", cwd=tmp_path)
    assert other.returncode == 2
    assert "RDTL-U013" in other.stderr


def test_minislurm_that_is_not_up_names_the_command(tmp_path: Path) -> None:
    if (ROOT / "configs/sites/minislurm.yaml").exists():
        pytest.skip("a test cluster is up in this checkout")
    done = rdtl("run", "--site", "minislurm", "--", "true", cwd=tmp_path)
    assert done.returncode == 2
    assert "make cluster-up" in done.stderr


def test_runs_list_and_show(tmp_path: Path) -> None:
    rdtl("run", "--name", "a", "--", "true", cwd=tmp_path)
    listed = json.loads(rdtl("runs", "list", "--json", cwd=tmp_path).stdout)
    assert [(run["name"], run["state"]) for run in listed] == [("a-local", "done")]
    shown = json.loads(rdtl("runs", "show", "runs/a-local", "--json", cwd=tmp_path).stdout)
    (stage,) = shown["stages"]
    assert (stage["stage"], stage["done"], stage["tasks"], stage["attempts"]) == ("run", 1, 1, 1)
    nothing = rdtl("runs", "show", str(tmp_path), cwd=tmp_path)
    assert nothing.returncode == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="hides a library with a mount: needs root")
def test_doctor_notices_a_missing_rendering_library(tmp_path: Path) -> None:
    """OSMesa is really hidden, in a mount namespace of its own."""
    found = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    library = next(line.split()[-1] for line in found.splitlines() if "libOSMesa.so" in line)
    real = os.path.realpath(library)
    code = (
        "import json; from launcher.simulator_checks import rendering; "
        "print(json.dumps(rendering(None, None)[0].to_dict()))"
    )
    import sys

    script = f"mount --bind /dev/null {real} && exec {sys.executable} -c '{code}'"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=True
    )
    finding = json.loads(done.stdout)
    assert (finding["code"], finding["severity"]) == ("RDTL-E011", "error")
    assert "apt-get install" in finding["fix"]
