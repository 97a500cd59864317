"""What a command line does not name is not built, and nobody notices."""

from __future__ import annotations

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from launcher.cli.app import app
from launcher.cli.reachable import reachable

LINES = [
    "", "--help", "--version --json", "shwo", "runs", "runs --help", "runs shwo",
    "runs show --help", "train --help", "train --no-such", "recipe plan --help",
    "run --nodes none -- runs show", "--no-such runs",
]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_says_what_it_says_with_all_commands(line: str) -> None:
    words = line.split()
    whole, part = (CliRunner().invoke(one, words) for one in (app, reachable(app, words)))
    assert (part.output, part.exit_code) == (whole.output, whole.exit_code)


@pytest.mark.parametrize(
    ("line", "built"), [("runs show mine", ["show"]), ("--help", []), ("train x", [])]
)
def test_only_what_is_named_is_built(line: str, built: list[str]) -> None:
    found = get_command(reachable(app, line.split()))
    below = [name for group in found.commands.values() for name in getattr(group, "commands", {})]  # type: ignore[attr-defined]
    assert below == built


def test_the_program_itself_stays_whole() -> None:
    before = len(app.registered_commands), len(app.registered_groups)
    reachable(app, ["runs", "show"])
    assert (len(app.registered_commands), len(app.registered_groups)) == before
