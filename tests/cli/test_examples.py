"""Every command explains itself by examples that are command lines of this program."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docs import commands, results
from launcher import config
from launcher.cli.examples import EXAMPLES
from launcher.core.errors import UsageError
from launcher.dag import load, resolve
from launcher.images import transfer
from rdt.spec.contract import CONTRACTS
from tests.cli import answers
from tests.cli.run_rdtl import rdtl

INTERNAL = {"cloud guard"}
"""Started by the program itself."""


def all_commands() -> Iterator[tuple[str, Any]]:
    """Every command by its words."""

    def below(command: Any, above: str) -> Iterator[tuple[str, Any]]:
        for name, inner in command.commands.items():
            if hasattr(inner, "commands"):
                yield from below(inner, f"{above}{name} ")
            else:
                yield above + name, inner

    return below(commands.program(), "")


MEANINGS = {
    "--follow": "logs: go on printing; sweep: the training whose checkpoints come",
    "--html": "report: also a page in the run; recipe graph: where the page goes",
    "--minutes": "demo: a length of training; elsewhere the limit of a job, in whole minutes",
    "--checkpoint": "sweep: several; elsewhere one",
    "--contract": "sweep: several; elsewhere one",
    "--task": "data collect: a number in a suite; runs logs: one of an array; data: a name",
}
"""Options whose name means more than one thing, with what."""
NOT_FOR_PROGRAMS = {
    "cloud guard": "a process of the program's own",
    "image def": "its result is a file's text",
    "image dockerfile": "its result is a file's text",
    "runs watch": "draws; runs show is the same for programs",
    "serve": "goes on until it is ended; its first line says where",
    "shell": "is a terminal",
}


def test_an_option_means_the_same_everywhere() -> None:
    found: dict[str, set[tuple[str, bool]]] = {}
    for _, command in all_commands():
        context = command.context_class(command, info_name="rdtl")
        for option in command.params:
            kind = option.get_help_record(context)[0].partition(" ")[2]
            for name in (name for name in option.opts if name.startswith("-")):
                found.setdefault(name, set()).add((kind, getattr(option, "multiple", False)))
    differing = {name for name, kinds in found.items() if len(kinds) > 1}
    assert differing == MEANINGS.keys(), {name: found[name] for name in differing}
    assert not found.keys() & {"--output", "--to", "--processes", "--workers", "--dest", "--force-"}
    assert {name for name in found if not name.startswith("--")} == {"-f"}


def test_every_answer_for_programs_has_a_schema() -> None:
    asked = {name for name, command in all_commands() if "--json" in words_of(command)}
    assert {name for name, _ in all_commands()} - asked == NOT_FOR_PROGRAMS.keys()
    assert asked - {"doctor"} == results.RESULTS.keys() - {"--version", "doctor"}


def words_of(command: Any) -> list[str]:
    return [word for option in command.params for word in option.opts]


def test_an_answer_that_is_not_what_the_schema_says_is_noticed() -> None:
    good = {"hostfile": "/a", "command": ["deepspeed"]}
    answers.require(["hostfile", "--json"], json.dumps(good))
    answers.require(["hostfile"], json.dumps({"error": UsageError("RDTL-U001", "no").to_dict()}))
    for wrong in ({**good, "more": 1}, {"hostfile": "/a"}, {**good, "command": "deepspeed"}, []):
        with pytest.raises(AssertionError, match="hostfile"):
            answers.require(["hostfile"], json.dumps(wrong))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the runs that examples name, because some options look whether they exist."""
    for name in ("mine-local", "other-local"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("place")
def test_examples_are_command_lines() -> None:
    assert {name for name, _ in all_commands()} == EXAMPLES.keys() | INTERNAL
    for name, lines in EXAMPLES.items():
        for line in lines:
            program, *words = shlex.split(line)
            assert program == "rdtl"
            assert words[: len(name.split())] == name.split()
            commands.parse(words)
            assert len(line) <= 76, "it would be torn in a terminal of 80 columns"


RECIPE_VERBS = ("graph", "plan", "run", "attach", "status", "stop", "verify", "fetch")


def test_what_is_shipped_is_called_by_its_name() -> None:
    shipped = {
        "train": config.names("train"),
        "evaluate": config.names("evaluate"),
        "sweep": config.names("evaluate"),
        "pipeline": config.names("pipelines"),
        "stage in": config.names("assets"),
        **{f"image {verb}": config.names("images") for verb in ("build", "def", "dockerfile")},
        **{f"recipe {verb}": load.names() for verb in RECIPE_VERBS},
        **{f"cloud {verb}": load.names() for verb in ("offers", "up")},
    }
    for name, known in shipped.items():
        for line in EXAMPLES[name]:
            word = shlex.split(line)[1 + len(name.split())]
            own = word.endswith(".yaml") or "://" in word or word.startswith("-")
            assert own or word in known, line


def test_steps_of_recipes_are_there() -> None:
    for verb in ("verify", "fetch"):
        for line in EXAMPLES[f"recipe {verb}"]:
            given = commands.parse(shlex.split(line)[1:]).params
            loaded = load.load(given["recipe"])
            open_ = {name: "/x" for name, p in loaded.recipe.parameters.items() if not p.default}
            steps = resolve.resolve(loaded, "/run", values=open_).steps
            proven = {s.name for s in steps if s.verify.cheap or s.verify.deep}
            known = {s.name for s in steps if s.outputs} if verb == "fetch" else proven
            assert set(given["steps"]) <= known, line


def test_what_an_example_gives_would_be_taken() -> None:
    for line in EXAMPLES["checkpoint adopt"]:
        contract = CONTRACTS[commands.parse(shlex.split(line)[1:]).params["contract"]]
        assert contract.state_normalisation == "none", line
    for line in EXAMPLES["image pull"]:
        reference = shlex.split(line)[-1]
        assert reference.startswith("$(cat ") or transfer.SIF_REFERENCE.fullmatch(reference), line


def test_help_shows_them_on_lines_of_their_own(tmp_path: Path) -> None:
    for columns in ("80", "120"):
        done = rdtl("evaluate", "--help", cwd=tmp_path, env={"COLUMNS": columns})
        lines = [line.strip() for line in done.stdout.splitlines()]
        assert set(EXAMPLES["evaluate"]) <= set(lines)
