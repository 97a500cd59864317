"""A group of commands whose help shows the whole first sentence of each."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

LONGEST = 1000
"""Letters of a sentence: none is cut, the formatter wraps it."""


class Group(TyperGroup):
    """Click cuts each sentence to one line, and often the words that tell commands apart."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The section that lists the commands."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, command.get_short_help_str(LONGEST))
            for name, command in commands
            if command and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
