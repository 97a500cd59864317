"""The part of a program that a command line can reach: Typer would build the whole."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import typer


def reachable(app: typer.Typer, words: Sequence[str]) -> typer.Typer:
    """``app`` without what the command line ``words`` cannot need.

    Options of all commands cost more than everything else that happens at the start. A group
    that is not named keeps its place and its sentence for help, and for a mistyped word.
    """
    named = next((word for word in words if not word.startswith("-")), "")
    below = words[words.index(named) + 1 :] if named else []
    found = copy.copy(app)
    commands = [one for one in app.registered_commands if one.name == named]
    groups = [one for one in app.registered_groups if one.name == named]
    if commands or groups:
        found.registered_commands = commands
        found.registered_groups = [_with(one, reachable(_app(one), below)) for one in groups]
    else:
        found.registered_groups = [_with(one, _empty(_app(one))) for one in app.registered_groups]
    return found


def _app(group: typer.models.TyperInfo) -> typer.Typer:
    assert group.typer_instance is not None  # Typer makes none without
    return group.typer_instance


def _with(group: typer.models.TyperInfo, app: typer.Typer) -> typer.models.TyperInfo:
    found = copy.copy(group)
    found.typer_instance = app
    return found


def _empty(app: typer.Typer) -> typer.Typer:
    found = copy.copy(app)
    found.registered_commands, found.registered_groups = [], []
    return found
