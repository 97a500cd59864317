"""Rendering: both forms of a definition hold the same, and nothing that they must not."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from launcher.images import context, definition, render

NAMES = definition.names()
GOLDEN = Path(__file__).parent / "golden"
SHELL_STEPS = sorted((Path(__file__).parent.parent.parent / "containers" / "steps").glob("*.sh"))


def rendered(name: str, wheels: bool = False) -> tuple[str, str]:
    wanted, lock = definition.load(name)
    marks = render.labels(name, wanted, lock.sha256, lock.versions())
    return render.dockerfile(wanted, marks, wheels), render.apptainer(wanted, marks, wheels)


def commands(text: str) -> list[list[str]]:
    """argv of every step that a text runs, in order; lines are joined as a shell would."""
    joined = text.replace("\\\n", " ")
    found = re.findall(rf"sh {render.BUILD}/(\S+\.sh.*)", joined)
    return [shlex.split(line) for line in found]


def environment_of(dockerfile: str, definition_file: str) -> tuple[dict[str, str], dict[str, str]]:
    line = re.search(r"^ENV (.*)$", dockerfile.replace("\\\n", " "), flags=re.MULTILINE)
    section = definition_file.split("%environment\n")[1].split("\n%")[0]
    assert line is not None
    pairs = re.findall(r'(\w+)="([^"]*)"', line[1]), re.findall(r'(\w+)="([^"]*)"', section)
    return dict(pairs[0]), dict(pairs[1])


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_run_the_same_steps_with_the_same_arguments(name: str) -> None:
    docker, apptainer = rendered(name)
    wanted, _ = definition.load(name)
    expected = [[script, *arguments] for script, arguments in render.steps(wanted)]
    assert commands(docker) == commands(apptainer.split("%post")[1]) == expected
    assert expected[0][1:] == wanted.apt


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_have_the_same_lock_labels_and_environment(name: str) -> None:
    docker, apptainer = rendered(name)
    wanted, lock = definition.load(name)
    for label in (f'io.rdtl.lock="{lock.sha256}"', f'io.rdtl.image="{name}"'):
        assert label in docker
        assert label.replace("=", " ", 1).replace('"', "") in apptainer
    first, second = environment_of(docker, apptainer)
    assert first == second == {"PATH": "/opt/venv/bin:$PATH", **wanted.variables()}
    assert ("10_nvidia.json" in docker, "10_nvidia.json" in apptainer) == (
        (render.uses_egl(wanted),) * 2
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_layers_and_what_a_dockerfile_must_not_have(name: str) -> None:
    docker, _ = rendered(name)
    marks = ["system.sh", "COPY lock.txt", "python.sh", "test.sh", "LABEL", "USER 1000"]
    places = [docker.rindex(mark) for mark in marks]
    assert places == sorted(places)
    assert "# syntax" not in docker
    assert "ENTRYPOINT []" in docker


def test_wheels_are_mounted_only_where_they_are_downloaded_before() -> None:
    for wheels in (False, True):
        docker, apptainer = rendered("all-cpu", wheels)
        assert (render.WHEELS in docker) == wheels
        assert ("RDTL_WHEELS" in apptainer) == wheels


def test_secrets_are_mounts_and_reach_only_the_steps_that_install() -> None:
    docker, apptainer = rendered("all-cpu")
    for run in re.findall(r"^RUN .*$", docker.replace("\\\n", " "), flags=re.MULTILINE):
        installs = "python.sh" in run or "ops.sh" in run
        assert ("type=secret" in run) == installs
    for text in (docker, apptainer):
        assert not re.search(r"(?i)index-url|password|token", text)
        assert re.findall(r"https?://\S+", text) == [definition.load("all-cpu")[0].extra_index]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["Dockerfile", "def"])
def test_rendering_is_as_recorded(name: str, form: str) -> None:
    """The lock's digest changes with every `make locks` and is compared elsewhere."""
    docker, apptainer = rendered(name)
    text = docker if form == "Dockerfile" else apptainer
    text = re.sub(r'(io\.rdtl\.(?:lock|versions))[ =]"?[^"\s]+"?', r"\1 …", text)
    recorded = GOLDEN / f"{name}.{form}"
    assert text == recorded.read_text(encoding="utf-8"), f"{recorded} differs; look at it first"


@pytest.mark.parametrize("path", SHELL_STEPS, ids=lambda path: path.name)
def test_steps_are_plain_sh(path: Path) -> None:
    done = subprocess.run(["sh", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_context_holds_exactly_what_a_build_may_see(tmp_path: Path) -> None:
    wanted, lock = definition.load("sim-cpu")
    context.write(tmp_path, wanted, lock, None)
    top = {path.name for path in tmp_path.iterdir()}
    assert top == {"steps", "lock.txt", "code"}
    code = {
        path.relative_to(tmp_path / "code").parts[0] for path in (tmp_path / "code").rglob("*.py")
    }
    assert code == {"rdt", "launcher"}
    launcher = {path.name for path in (tmp_path / "code" / "launcher").iterdir()}
    assert launcher == {"__init__.py", "core"}
    assert all(path.is_file() or path.is_dir() for path in tmp_path.rglob("*"))


def test_part_of_a_lock(tmp_path: Path) -> None:
    """What the steps install in two rounds is the whole lock, each package once."""
    _, lock = definition.load("all-cpu")
    part = SHELL_STEPS[0].parent / "part.py"

    def run(*arguments: str) -> str:
        argv = ["python3", str(part), str(lock.path), *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    first, second = run("--only", "pip", "wheel"), run("--without", "pip", "wheel")
    assert re.findall(r"^[a-z]+", first, flags=re.MULTILINE) == ["pip", "wheel"]
    entries = [line for line in lock.text.splitlines() if not line.startswith("#")]
    assert sorted((first + second).splitlines()) == sorted(entries)
