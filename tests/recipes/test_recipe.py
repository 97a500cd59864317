"""What a recipe may say, and what its names become."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.core import dag, dag_reading
from launcher.core.errors import UsageError
from launcher.dag import interpolate, load, resolve, schema
from tests.recipes.writing import graph, loaded

RUN = {"argv": ["true"]}


def refused(call: Any, *arguments: Any) -> str:
    with pytest.raises(UsageError) as raised:
        call(*arguments)
    return f"{raised.value.problem.code} {raised.value}"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (90, 90),
        ("90", 90),
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1d", 86400),
    ],
)
def test_lengths_of_time(text: Any, wanted: float) -> None:
    assert schema.seconds(text) == wanted


@pytest.mark.parametrize("text", ["", "10 m", "m10", "1h30", "10x", True, None])
def test_what_is_no_length_of_time(text: Any) -> None:
    with pytest.raises(ValueError, match="90s"):
        schema.seconds(text)


def test_names_are_replaced_everywhere_but_in_scripts(tmp_path: Path) -> None:
    found = graph(
        tmp_path,
        {
            "one": {
                "argv": ["${program}", "a b", "$${literal}", "${run}/x"],
                "env": {"WHERE": "${data}", "NUMBER": 3, "YES": True},
                "outputs": ["${data}/out"],
                "timeout": "${hours}h",
                "verify": {"cheap": ["test", "-e", "${data}"]},
                "markers": [
                    {"name": "n", "pattern": r"x=(?P<n>\d+)${2}", "expect": {"n": [0, "${hours}"]}}
                ],
            },
            "two": {"script": 'echo "$data" ${program} $${x} "${unknown:-}"'},
        },
        parameters={
            "program": {"about": "p", "default": "ls"},
            "hours": {"about": "h", "default": 2},
        },
        variables={"data": "/d/${program}"},
    )
    one, two = found.steps
    assert one.argv == ("ls", "a b", "${literal}", "/run/x")
    assert one.env == {"WHERE": "/d/ls", "NUMBER": "3", "YES": "true"}
    assert (one.outputs, one.timeout_s) == (("/d/ls/out",), 7200.0)
    assert one.verify.cheap == ("test", "-e", "/d/ls")
    assert one.markers[0].pattern == r"x=(?P<n>\d+)${2}"
    assert one.markers[0].expect == {"n": (0.0, 2.0)}
    assert two.script == 'echo "$data" ${program} $${x} "${unknown:-}"'
    assert two.env == {"data": "/d/ls", "program": "ls"}


@given(st.text("${}ab "), st.text("${}ab "))
def test_a_value_never_brings_names_of_its_own(value: str, beside: str) -> None:
    escaped = beside.replace("${", "$${")
    found = interpolate.text("${a}" + escaped, {"a": value, "b": "B"}, (), "here")
    assert found == value + beside


def test_hostile_values_stay_one_word_in_a_script(tmp_path: Path) -> None:
    hostile = "a b; touch owned $(touch owned) `touch owned` '\" * \\"
    step = graph(
        tmp_path,
        {"one": {"script": 'printf %s "$value"'}},
        parameters={"value": {"about": "v", "default": hostile}},
    ).steps[0]
    done = subprocess.run(
        dag.launch(step.command), env=dict(step.env), cwd=tmp_path, capture_output=True, check=True
    )
    assert done.stdout.decode() == hostile
    assert not (tmp_path / "owned").exists()


def test_a_script_below_sshd_reads_no_start_up_file(tmp_path: Path) -> None:
    """Debian's bash does, and with -u the system's own says first that PS1 is unset."""
    (tmp_path / ".bashrc").write_text("echo read")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SSH_CLIENT": "::1 1 2"}
    done = subprocess.run(
        dag.launch("echo ran"), env=environment, capture_output=True, check=True, text=True
    )
    assert (done.stdout, done.stderr) == ("ran\n", "")


def test_secrets_and_unknown_names_cannot_be_text(tmp_path: Path) -> None:
    made = {"argv": ["x", "${TOKEN}"]}
    said = refused(lambda: graph(tmp_path, {"one": made}, secrets={"TOKEN": "t"}))
    assert "RDTL-U121" in said
    assert "steps.one.argv.1" in said
    said = refused(lambda: graph(tmp_path, {"one": {"argv": ["${wrokspace}"]}},
                                 variables={"workspace": "/w"}))  # fmt: skip
    assert "RDTL-U120" in said
    assert "did you mean workspace" in said


def test_mistakes_are_named_with_what_is_near(tmp_path: Path) -> None:
    said = refused(lambda: graph(tmp_path, {"one": {"argv": ["true"], "ouputs": ["x"]}}))
    assert "RDTL-U001" in said
    assert "nearest valid key is outputs" in said
    assert "steps.one" in said
    assert "either argv or script" in refused(lambda: graph(tmp_path, {"one": {}}))
    said = refused(lambda: loaded(tmp_path, {"one": RUN}, pofile="x"))
    assert "profile" in said


def test_values_come_from_set_then_profile_then_default(tmp_path: Path) -> None:
    made = loaded(
        tmp_path,
        {"one": {"argv": ["${a}", "${b}", "${c}", "${profile}"]}},
        parameters={n: {"about": n, "default": "d"} for n in "abc"},
        profile="p",
        profiles={
            "p": {"about": "p", "parameters": {"b": "p", "c": "p"}},
            "q": {"about": "q", "parameters": {}},
        },
    )
    assert resolve.resolve(made, "/r", None, {"c": "s"}).steps[0].argv == ("d", "p", "s", "p")
    assert resolve.resolve(made, "/r", "q", {}).steps[0].argv == ("d", "d", "d", "q")
    assert "did you mean" in refused(resolve.resolve, made, "/r", "pp", {})
    assert "RDTL-U122" in refused(resolve.resolve, made, "/r", None, {"d": "1"})


def test_missing_values_and_wrong_choices(tmp_path: Path) -> None:
    made = loaded(
        tmp_path,
        {"one": {"argv": ["${a}", "${b}"]}},
        parameters={
            "a": {"about": "the data"},
            "b": {"about": "b", "default": "x", "choices": ["x", "y"]},
        },
    )
    said = refused(resolve.resolve, made, "/r", None, {})
    assert "RDTL-U123" in said
    assert "the data" in said
    assert "RDTL-U124" in refused(resolve.resolve, made, "/r", None, {"a": "1", "b": "z"})


def test_the_machine_follows_the_parameters(tmp_path: Path) -> None:
    made = loaded(
        tmp_path,
        {"one": RUN},
        parameters={"gpus": {"about": "g", "default": 2}},
        machine={"gpus": "${gpus}", "gpu": "H100|H200", "disk_gb": 250},
    )
    assert resolve.machine(made, None, {"gpus": "4"}).gpus == 4
    assert "RDTL-U001" in refused(resolve.resolve, made, "/r", None, {"gpus": "many"})


def test_a_recipe_extends_another_but_not_itself(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(
        json.dumps({"name": "base", "about": "b", "steps": {"one": {**RUN, "takes": 5}}})
    )
    own = tmp_path / "own.yaml"
    own.write_text(
        json.dumps(
            {"extends": str(base), "name": "own", "steps": {"one": {"needs": []}, "two": RUN}}
        )
    )
    found = resolve.resolve(load.load(str(own)), "/r")
    assert [(s.name, s.expected_s) for s in found.steps] == [("one", 5.0), ("two", 1.0)]
    base.write_text(json.dumps({"extends": str(own)}))
    assert "extends itself" in refused(load.load, str(own))


def test_the_graph_survives_its_json_form(tmp_path: Path) -> None:
    signature = {"code": "RDTL-X018", "pattern": "x", "cause": "c", "fix": "f"}
    marker = {"name": "m", "pattern": "(?P<step>x)", "expect": {"step": [1, 2]}}
    found = graph(tmp_path, {"one": {**RUN, "signatures": [signature], "markers": [marker]}})
    text = json.dumps(found.to_dict())
    assert json.dumps(dag_reading.from_dict(json.loads(text)).to_dict()) == text
