"""The page of all commands, made from the commands themselves; and how a line is parsed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from docs import results
from launcher.cli.app import app

# Typer's own classes lie in private modules, so commands and contexts are Any here.
Command = Any
Context = Any
PROGRAM = "rdtl"
BAR = "\\|"  # a bar that does not end the cell of a table


@functools.cache
def program() -> Command:
    """``rdtl`` as a command of commands."""
    return typer.main.get_command(app)


def parse(words: Sequence[str]) -> Context:
    """What ``rdtl WORDS`` would be called with.

    KeyError when there is no such command; for anything else wrong what Typer raises.
    """
    command, rest, name = program(), list(words), PROGRAM
    while rest and hasattr(command, "commands"):
        name, rest = rest[0], rest[1:]
        if name.startswith("-"):  # an option of the program or of a group
            return command.make_context(PROGRAM, [name, *rest], resilient_parsing=True)
        command = command.commands[name]
    return command.make_context(name, rest)


def page() -> str:
    """The text of docs/reference/cli.md below its header."""
    top = program()
    parts = [
        "# Commands\n",
        "What `--help` says, on one page. The same words mean the same everywhere: `--site` where,",
        "`--set KEY=VALUE` one key of the configuration, `--dry-run` nothing is done, `--json` one",
        "document on stdout. Exit status: 0 done, 1 the work failed, 2 a mistake in command or",
        "configuration, 3 a check refuses, 4 scheduler or remote machine fail, 130 interrupted.\n",
    ]
    context = top.context_class(top, info_name=PROGRAM)
    for name, command in top.commands.items():
        parts += _sections(command, context, name, "##")
    return "\n".join(parts)


def _sections(command: Command, above: Context, name: str, mark: str) -> Iterator[str]:
    """Heading, help, usage and words of a command; of a group those of its commands below it."""
    context = command.context_class(command, info_name=name, parent=above)
    yield f"{mark} {context.command_path}\n"
    yield from (f"{_text(paragraph)}\n" for paragraph in _paragraphs(command.help or ""))
    if hasattr(command, "commands"):
        for key, inner in command.commands.items():
            yield from _sections(inner, context, key, mark + "#")
        return
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {usage}\n```\n"
    yield "| word | meaning |\n|---|---|"
    for parameter in command.params:
        names, meaning = parameter.get_help_record(context)
        yield f"| `{names.replace('|', BAR)}` | {_text(meaning).replace('|', BAR)} |"
    yield ""
    _, *lines = (command.epilog or "").split("\n")[1:] or [""]
    if lines:
        yield "```text\n" + "\n".join(line.strip() for line in lines) + "\n```\n"
    words = context.command_path.removeprefix(f"{PROGRAM} ")
    if words in results.RESULTS:
        yield f"Schema of `--json`: [{words}](json/{results.file_name(words)})\n"


def _paragraphs(text: str) -> list[str]:
    return [" ".join(block.split()) for block in inspect.cleandoc(text).split("\n\n") if block]


def _text(words: str) -> str:
    """Help as Markdown: what stands in angle brackets is no HTML, what is in code stays."""
    pieces = words.split("`")
    return "`".join(p if n % 2 else p.replace("<", "&lt;") for n, p in enumerate(pieces))
