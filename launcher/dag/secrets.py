"""Values of secrets: read from where the user keeps them, sent once, never written down."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from launcher.core.errors import UsageError
from launcher.dag import resolve
from launcher.dag.schema import Recipe


def references(given: Sequence[str], known: Collection[str], where: str) -> dict[str, str]:
    """``--secret NAME=env:VARIABLE`` or ``NAME=file:PATH`` as a mapping.

    Raises UsageError RDTL-U135 for other forms, RDTL-U122 for names that are not ``known`` to
    the recipe ``where``.
    """
    pairs = [one.partition("=") for one in given]
    for name, _, place in pairs:
        if place.partition(":")[0] not in ("env", "file"):
            raise UsageError(
                "RDTL-U135",
                f"--secret {name}=… does not say where the value lies",
                why="a value in a command line stands in the process list and in histories",
                fix=f"--secret {name}=env:{name} or --secret {name}=file:PATH",
            )
    found = {name: place for name, _, place in pairs}
    resolve.require_known("secret", found, known, where)
    return found


def read(
    names: Sequence[str], given: Mapping[str, str], recipe: Recipe | None = None
) -> dict[str, str]:
    """The value of each name, from its reference or the variable of its name.

    ``recipe`` says what each is for and which may be left out: those are empty. Raises UsageError
    RDTL-U136 for one that is missing, empty or has several lines.
    """
    abouts = recipe.secrets if recipe else {}
    spared = {
        name
        for name in (recipe.optional_secrets if recipe else ())
        if name not in given and not os.environ.get(name)
    }
    return {
        name: ""
        if name in spared
        else _read(name, given.get(name, f"env:{name}"), abouts.get(name, ""))
        for name in names
    }


def present(names: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """Their values for looking only: empty where none is there, as steps find optional ones."""
    found = {name: _value(given.get(name, f"env:{name}")) for name in names}
    return {name: "" if "\n" in value else value for name, value in found.items()}


def _value(place: str) -> str:
    kind, _, where = place.partition(":")
    if kind == "env":
        return os.environ.get(where, "")
    path = Path(where).expanduser()
    return path.read_text(encoding="utf-8").rstrip("\n") if path.is_file() else ""


def _read(name: str, place: str, about: str) -> str:
    value = _value(place)
    if value and "\n" not in value and "\r" not in value:
        return value
    several = bool(value)
    raise UsageError(
        "RDTL-U136",
        f"the secret {name} {'has several lines' if several else 'is not there'}",
        where=place,
        why=f"{about or 'a step of this recipe needs it'} (a variable of one line)",
        fix="encode it (base64)" if several else f"--secret {name}=file:PATH, or export {name}",
    )


def as_lines(values: Mapping[str, str]) -> bytes:
    """The form that the runner reads."""
    return "".join(f"{name}={value}\n" for name, value in values.items()).encode()
