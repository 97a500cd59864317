"""The graph: its JSON form, what it refuses, its fingerprints, and what is shipped of it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.core import dag, dag_reading, dag_ship
from launcher.core.dag import Graph, Limit, Marker, Signature, Step, Verify
from launcher.core.errors import UsageError
from tests.recipes.boxes import Box, bare_python

FULL = Step(
    "b",
    script="make",
    needs=("a",),
    env={"X": "1"},
    secrets=("KEY",),
    inputs=("in",),
    outputs=("out",),
    verify=Verify(cheap="test -f out", deep=("sha256sum", "out")),
    resources={"net": 1},
    signatures=(
        Signature(
            "RDTL-X000",
            r"step=(?P<step>\d+) loss=(?P<loss>\S+)",
            "diverged",
            "lower the rate",
            limit=Limit("loss", above=8.0, from_step=50),
        ),
    ),
    markers=(Marker("rows", r"(?P<rows>\d+) rows", 1, {"rows": [1, 9]}),),
    remedies=("retry",),
)


def test_the_json_form_keeps_everything() -> None:
    graph = Graph("g", (Step("a", argv=("true",)), FULL), "/work", {"net": 2})
    assert dag_reading.from_dict(json.loads(json.dumps(graph.to_dict()))) == graph


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (
            (Step("a", argv=("x",), needs=("b",)), Step("b", argv=("x",), needs=("a",))),
            "each other",
        ),
        ((Step("a", argv=("x",), needs=("z",)),), "'z', which is no step"),
        ((Step("a", argv=("x",)), Step("a", argv=("y",))), "two steps"),
        ((Step("a"),), "either argv or script"),
        ((Step("a", argv=("x",), script="y"),), "either argv or script"),
        ((Step("../a", argv=("x",)),), "name is not made"),
        ((Step("a", argv=("x",), resources={"gpu": 3}),), "wants 3 of resource 'gpu'"),
        ((Step("a", argv=("x",), remedies=("pray",)),), "'pray' is no remedy"),
        ((Step("a", argv=("x",), markers=(Marker("m", "(x"),)),), "is no pattern"),
        ((Step("a", argv=("x",), markers=(Marker("m", "x", expect={"n": 1}),)),), "no group 'n'"),
        (
            (Step("a", argv=("x",), signatures=(Signature("C", "x", "", "", limit=Limit("l")),)),),
            "no group 'l'",
        ),
    ],
)
def test_what_can_never_run_is_refused(steps: tuple[Step, ...], said: str) -> None:
    with pytest.raises(UsageError, match="cannot run") as refused:
        dag_reading.check(Graph("g", steps, "/work", {"gpu": 2}))
    assert refused.value.problem.code == "RDTL-B051"
    assert said in refused.value.problem.why


@pytest.mark.parametrize("change", [{"version": 2}, {"color": "red"}, {"steps": [{"argv": ["x"]}]}])
def test_what_is_no_graph_is_refused(change: dict[str, object]) -> None:
    data = Graph("g", (Step("a", argv=("x",)),), "/work").to_dict() | change
    with pytest.raises(UsageError, match="cannot run"):
        dag_reading.from_dict(data)


def test_a_fingerprint_changes_with_what_success_depends_on_and_with_nothing_else(
    tmp_path: Path,
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x").write_text("1")
    first = dag.fingerprint(FULL, ["up"], tmp_path)
    for other in (
        replace(FULL, script="make all"),
        replace(FULL, env={"X": "2"}),
        replace(FULL, secrets=()),
    ):
        assert dag.fingerprint(other, ["up"], tmp_path) != first
    assert dag.fingerprint(FULL, ["changed"], tmp_path) != first
    same = replace(FULL, retries=3, about="…", timeout_s=1.0, markers=(), expected_s=9)
    assert dag.fingerprint(same, ["up"], tmp_path) == first
    (tmp_path / "in" / "x").write_text("2")
    assert dag.fingerprint(FULL, ["up"], tmp_path) != first


def test_the_longest_way_to_the_end() -> None:
    steps = (
        Step("a", argv=("x",), expected_s=1),
        Step("b", argv=("x",), needs=("a",), expected_s=10),
        Step("c", argv=("x",), needs=("a",), expected_s=2),
        Step("d", argv=("x",), needs=("b", "c"), expected_s=3),
    )
    assert Graph("g", steps, "/").ways() == {"a": 14, "b": 13, "c": 5, "d": 3}


def test_everything_that_the_shipped_modules_import_is_shipped() -> None:
    names = {f"launcher.core.{path.stem}" for path in dag_ship.sources()}
    for path in dag_ship.sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "launcher.core":
                assert {f"launcher.core.{alias.name}" for alias in node.names} <= names, path
            elif isinstance(node, ast.ImportFrom):
                assert (
                    node.module in names
                    or node.module in sys.stdlib_module_names
                    or (str(node.module).split(".")[0] in sys.stdlib_module_names)
                ), (path, node.module)


def test_the_shipped_modules_are_python_3_10() -> None:
    rules = ["check", "--isolated", "--target-version", "py310", "--select", "E9,F", "--no-cache"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *rules, *map(str, dag_ship.sources())],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_a_bare_python_imports_every_shipped_module(tmp_path: Path) -> None:
    dag_ship.write(tmp_path / "runner.pyz")
    with zipfile.ZipFile(tmp_path / "runner.pyz") as archive:
        modules = [name[:-3].replace("/", ".") for name in archive.namelist() if "/core/" in name]
    assert "launcher.core.dag_runner" in modules
    program = f"import sys; sys.path.insert(0, sys.argv[1]); import {', '.join(modules)}"
    argv = [bare_python(), "-I", "-S", "-c", program, str(tmp_path / "runner.pyz")]
    subprocess.run(argv, check=True, cwd=tmp_path, timeout=60)


def test_equal_sources_make_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        dag_ship.write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_torn_graph_is_told_by_the_box(tmp_path: Path) -> None:
    box = Box(tmp_path, bare_python())
    box.write(Step("a", argv=("true",)))
    box.run.graph.write_text(box.run.graph.read_text()[:-20])
    for verb in ("run", "start", "plan"):
        done = box.call(verb)
        assert done.returncode == 2
        assert json.loads(done.stderr)["code"] == "RDTL-B051"


# A box's own Python may be older than ours; only machines with several can show it.
OLDER = sorted(Path.home().glob(".pyenv/versions/3.[6789].*/bin/python3"))


@pytest.mark.skipif(not OLDER, reason="this machine has no older Python")
@pytest.mark.parametrize("python", OLDER, ids=lambda path: path.parts[-3])
def test_an_older_python_is_told_in_words(tmp_path: Path, python: Path) -> None:
    box = Box(tmp_path, str(python))
    box.write(Step("a", argv=("true",)))
    done = box.call("run")
    assert done.returncode == 3
    assert json.loads(done.stderr)["code"] == "RDTL-B049"
