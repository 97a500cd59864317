"""The catalogue of failures is whole and true: codes, holders, tests, severities, shares."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import click
import pytest
import typer

from docs import failures_page
from launcher import catalogue, diagnose
from launcher.cli.app import app

ROOT = Path(__file__).parent.parent
CODE = re.compile(r"RDTL-[A-Z]\d{3}")
SOURCES = ("launcher", "jobs", "rdt", "containers", "configs", "docs", "README.md")
THEMSELVES = ("configs/failures/", "docs/failures.md")
ORDER = ("info", "warning", "error")
OTHERS_OPTIONS = {
    *("--yes", "--help", "--userns", "--no-privs", "--drop-caps", "--unsquash", "--standalone"),
    *("--reuse-only", "--inject"),
}
"""Options in fixes that belong to other programs."""


@cache
def tracked(*places: str) -> list[Path]:
    """Files of this checkout, also ones that are not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *places],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def said_in_sources() -> dict[str, str]:
    """Every code of the sources with one file that says it."""
    found = {}
    for path in tracked(*SOURCES):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(THEMSELVES):
            found |= dict.fromkeys(CODE.findall(path.read_text("utf-8", "ignore")), name)
    return found


@cache
def symbols(path: Path) -> set[str]:
    """What a Python file defines, as NAME, CLASS.NAME or module constant."""
    found = set()

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
                walk(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found.update(prefix + each.id for each in targets if isinstance(each, ast.Name))

    walk(ast.parse(path.read_text()).body, "")
    return found


def is_there(place: str) -> bool:
    """Whether FILE:SYMBOL exists; outside Python a symbol is a text of the file."""
    name, _, symbol = place.partition(":")
    path = ROOT / name
    if not symbol or not path.is_file():
        return False
    return symbol in (symbols(path) if path.suffix == ".py" else path.read_text())


def findings() -> dict[str, set[str]]:
    """The severities with which findings of a code are written down; `ok` is none."""
    found: dict[str, set[str]] = {}
    for path in tracked("launcher", "jobs", "rdt"):
        text = path.read_text() if path.suffix == ".py" else ""
        for node in ast.walk(ast.parse(text)) if "Finding(" in text else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Finding"):
                said = [each.value for each in node.args[:2] if isinstance(each, ast.Constant)]
                if len(said) == 2 and CODE.fullmatch(str(said[0])) and said[1] in ORDER:
                    found.setdefault(said[0], set()).add(said[1])
    return found


def test_every_code_of_the_sources_is_in_the_catalogue() -> None:
    said = said_in_sources()
    assert {code: said[code] for code in sorted(said.keys() - catalogue.failures())} == {}


def test_every_code_of_the_catalogue_has_a_holder_that_exists() -> None:
    missing = [
        f"{code}: {place}"
        for code, row in catalogue.failures().items()
        for place in row.by or ("nobody",)
        if row.held != "not-here" and not is_there(place)
    ]
    assert not missing, "\n".join(missing)


def test_tests_speak_of_codes_that_there_are() -> None:
    """Signatures and errors that a test invents have a letter of their own, X."""
    said = {
        code: path.relative_to(ROOT).as_posix()
        for path in tracked("tests", "benchmarks", "examples")
        for code in CODE.findall(path.read_text("utf-8", "ignore"))
        if code[5] != "X"
    }
    assert {code: said[code] for code in said.keys() - catalogue.failures()} == {}


def test_what_only_messages_say_is_still_said() -> None:
    """A row about a use of ours goes when its message goes."""
    said = said_in_sources()
    ours = {code for code, row in catalogue.failures().items() if not row.seen}
    assert sorted(ours - said.keys()) == []


def test_every_proof_exists() -> None:
    """A test function of that name in that file, or a reason why there is none."""
    missing = []
    for code, row in catalogue.failures().items():
        for name in row.test:
            path, _, test = name.partition("::")
            there = symbols(ROOT / path) if (ROOT / path).is_file() else ()
            if not test.split("::")[-1].startswith("test_") or test.replace("::", ".") not in there:
                missing.append(f"{code}: {name}")
        missing += [f"{code}: {name} twice" for name in set(row.test) if row.test.count(name) > 1]
        if not (row.test or row.reason or row.elsewhere):
            missing.append(f"{code}: neither a test nor a reason")
        if bool(row.test) == (row.proof == "none"):
            missing.append(f"{code}: proof {row.proof} with {len(row.test)} tests")
    assert not missing, "\n".join(missing)


def test_commands_are_commands_of_ours() -> None:
    """Placeholders are in capitals; options are those of the command."""
    for command in {row.command for row in catalogue.failures().values() if row.command}:
        words, at = command.split(), typer.main.get_command(app)
        assert words[0] == "rdtl"
        for word in words[1:]:
            if commands := getattr(at, "commands", None):
                at = commands[word]
            elif word.startswith("--"):
                assert word in {name for each in at.params for name in each.opts}, command
            else:
                assert word.isupper(), command


def test_options_of_fixes_are_options_of_ours() -> None:
    def options(command: click.Command) -> set[str]:
        own = {name for each in command.params for name in each.opts}
        return own.union(*map(options, getattr(command, "commands", {}).values()))

    known = options(typer.main.get_command(app))
    for code, row in catalogue.failures().items():
        said = set(re.findall(r"(?<!\S)--[a-z][a-z-]+", row.fix))
        assert said <= known | OTHERS_OPTIONS, code


def test_codes_lie_in_their_area_and_titles_are_told_apart() -> None:
    areas = catalogue.areas()
    assert [code for name, area in areas.items() for code in area.failures if code[5] != name] == []
    titles = Counter(row.title for row in catalogue.failures().values())
    assert [title for title, times in titles.items() if times > 1] == []


def test_every_row_says_why_and_what_to_do_and_says_it_once() -> None:
    signed = {one.cause for one in diagnose.known()} | {one.fix for one in diagnose.known()}
    raw = {
        code: row
        for path in tracked("configs/failures")
        for code, row in catalogue.read(path).failures.items()
    }
    assert [code for code, row in catalogue.failures().items() if not (row.cause and row.fix)] == []
    assert [code for code, row in raw.items() if {row.cause, row.fix} & signed] == []


def test_findings_are_as_severe_as_the_catalogue_says() -> None:
    """A check may be less sure than the failure is bad, never the reverse."""
    rows = catalogue.failures()
    wrong = {}
    for code, severities in findings().items():
        worst = max(severities, key=ORDER.index)
        meant = catalogue.SEVERITIES[rows[code].severity]
        if ORDER.index(worst) > ORDER.index(meant):
            wrong[code] = (worst, meant)
    assert wrong == {}


@pytest.mark.parametrize(("severity", "bar"), [("E", 0.95), ("W", 0.80)])
def test_enough_failures_are_proven(severity: str, bar: float) -> None:
    """Of those that were met before and that a machine of the tests can show."""
    share = failures_page.shares(catalogue.failures().values())[severity]
    assert share.proven / share.counted >= bar, share
    assert share.counted > 50


@pytest.mark.parametrize("said", ["RDTL-D003", "D003", "d003 "])
def test_a_code_is_found_however_it_is_written(said: str) -> None:
    code, row = catalogue.find(said)
    assert code == "RDTL-D003"
    assert "statistics" in row.title


def test_a_code_of_two_cases_begins_with_the_one_that_one_meets() -> None:
    """RDTL-S021 refuses a request; only in a queue's words does it mean to wait."""
    _, row = catalogue.find("S021")
    assert row.cause.index("nothing was submitted") < row.cause.index("queued")
    assert row.fix.index("ask for what") < row.fix.index("wait")
