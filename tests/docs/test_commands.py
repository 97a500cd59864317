"""Commands in README and docs are ones that exist, and those that can run here do run."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from docs import commands
from docs.generate import model_of
from launcher.dag import load
from launcher.schema import RunConfig
from tests.docs.blocks import ROOT, Block, blocks, spans

BLOCKS = list(blocks())
CONFIGURED = {"demo", "evaluate", "pipeline", "sweep", "train"}
OTHERS = {".", "apt-get", "cd", "git", "hf", "pip", "python3", "ssh", "uv"}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
SHIPPED = load.names()
ABSENT = re.compile(r"does not exist")  # a path of somebody else's machine


def fault(words: list[str]) -> str | None:
    """Why ``rdtl WORDS`` is no command line, or None."""
    try:
        commands.parse(words)
    except KeyError as error:
        return f"no such command: {error}"
    except Exception as error:
        return None if ABSENT.search(str(error)) else str(error)
    return None


def problem(words: list[str]) -> str | None:
    """What is wrong with one command of a block, or None."""
    first, rest = words[0].removeprefix(".venv/bin/"), words[1:]
    if first == "rdtl":
        return fault(rest)
    if first == "make":
        return None if set(rest) <= TARGETS else f"no such target: {set(rest) - TARGETS}"
    if first == "python" and rest[0] == "-m":
        return None if importlib.util.find_spec(rest[1]) else f"no module {rest[1]}"
    return None if first in OTHERS else f"a program that no test knows: {first}"


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_commands_of_pages_parse(block: Block) -> None:
    found = block.commands()
    assert found, "a block without a command"
    assert [f"{' '.join(words)}: {why}" for words in found if (why := problem(words))] == []
    assert block.mark, "say <!-- run --> or <!-- needs: … --> above it"


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_a_recipe_that_is_run_gets_its_secrets(block: Block) -> None:
    """Exported in its block, or named with --secret; a reader who copies it met RDTL-U136."""
    for words in block.commands():
        if words[:3] not in (["rdtl", "recipe", "run"], ["rdtl", "cloud", "up"]):
            continue
        if len(words) > 3 and words[3] in SHIPPED and "--dry-run" not in words:
            recipe = load.load(words[3]).recipe
            needed = set(recipe.secrets) - set(recipe.optional_secrets)
            assert [name for name in sorted(needed) if f"{name}=" not in block.text] == []


def test_commands_in_sentences_have_the_options_that_they_name() -> None:
    wrong = [f"{where}: `{text}`: {why}" for where, text in spans() if (why := misnamed(text))]
    assert wrong == []


def misnamed(text: str) -> str | None:
    """A command or option in ``text`` that does not exist; the rest of it may be anything."""
    words = re.sub(r"[\[\]…,]", " ", text).split()[1:]
    command = commands.program()
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        choices = words.pop(0).split("\\|") if "\\|" in words[0] else words.pop(0).split("|")
        if unknown := [name for name in choices if name not in command.commands]:
            return f"no such command: {unknown}"
        command = command.commands[choices[0]]
    known = {"--help", "--version"}.union(*(p.opts + p.secondary_opts for p in command.params))
    words = words[: words.index("--")] if "--" in words else words
    named = [word.split("=")[0] for word in words if word.startswith("--")]
    return next((f"no such option: {name}" for name in named if name not in known), None)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_settings_of_a_configuration_are_keys_that_exist(block: Block) -> None:
    wrong = [
        key
        for words in block.commands()
        if words[:1] == ["rdtl"] and words[1] in CONFIGURED
        for before, setting in itertools.pairwise(words)
        if before == "--set"
        for key in [setting.split("=")[0]]
        if not _is_key(RunConfig, key)
    ]
    assert wrong == []


def _is_key(model: type[BaseModel], key: str) -> bool:
    name, _, rest = key.partition(".")
    field = model.model_fields.get(name)
    inner = field and model_of(field.annotation)
    return field is not None and (not rest or (inner is not None and _is_key(inner, rest)))


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_who_has_json_and_a_dry_run_is_said_rightly(page: str) -> None:
    text = " ".join((ROOT / page).read_text().split())
    having = {
        option: {name for name, known in _options(commands.program(), "") if option in known}
        for option in ("--json", "--dry-run")
    }
    everyone = {name for name, _ in _options(commands.program(), "")}
    without = _named(re.search(r"all (?:commands have it )?but ([^.]+)\.", text))
    assert without == everyone - having["--json"]
    shown = re.search(r"`--dry-run` shows [^`]+(`[^.]+)\.|What starts work([^.]+)\.", text)
    assert _named(shown) == having["--dry-run"]


def _named(found: re.Match[str] | None) -> set[str]:
    assert found is not None
    return set(re.findall(r"`([a-z ]+)`", found[0]))


def _options(command: commands.Command, name: str) -> Iterator[tuple[str, set[str]]]:
    """All commands, each with its options."""
    if not hasattr(command, "commands"):
        yield name, {option for parameter in command.params for option in parameter.opts}
        return
    for key, inner in command.commands.items():
        yield from _options(inner, f"{name} {key}".strip())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new user's folder: the examples, a program `rdtl`, a home of its own."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "bin").mkdir()
    program = folder / "bin" / "rdtl"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m launcher "$@"\n')
    program.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.mark == "run"], ids=lambda block: block.name
)
def test_commands_that_can_run_here_do(block: Block, place: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(place),
    }
    environment.pop("VAST_API_KEY", None)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert (done.stdout + done.stderr).strip()
