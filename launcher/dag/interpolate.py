"""``${name}`` in the texts of a recipe.

A name is looked up once and what it stands for is not looked at again, so a value can
never bring names of its own. ``$${`` is the two characters ``${``. Scripts are left
alone: in them ``$name`` is the shell's, and the value is a variable of their environment.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any

from launcher.core.errors import UsageError

REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}")
LEFT_ALONE = frozenset({"about", "cause", "fix", "pattern"})
"""Keys whose text is for people or for the regular expression engine."""


def text(value: str, known: Mapping[str, str], secrets: Collection[str], where: str) -> str:
    """``value`` with its names replaced.

    Raises UsageError RDTL-U120 for an unknown name, RDTL-U121 for a secret.
    """

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "${"
        if name in secrets:
            raise _is_secret(name, where)
        if name not in known:
            raise _unknown(name, known, where)
        return known[name]

    return REFERENCE.sub(replaced, value)


def tree(
    value: Any, known: Mapping[str, str], secrets: Collection[str], where: str, key: str = ""
) -> Any:
    """The same for every text below ``value``; scripts and words for people stay as they are."""
    if isinstance(value, dict):
        return {
            name: tree(inner, known, secrets, f"{where}.{name}", str(name))
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [tree(one, known, secrets, f"{where}.{i}") for i, one in enumerate(value)]
    if not isinstance(value, str) or key in LEFT_ALONE or is_script(key):
        return value
    return text(value, known, secrets, where)


def is_script(key: str) -> bool:
    """Whether a text under ``key`` of a step is a script (a program with words is a list)."""
    return key in ("script", "cheap", "deep")


def _is_secret(name: str, where: str) -> UsageError:
    return UsageError(
        "RDTL-U121",
        f"{name} is a secret and cannot stand in a text",
        where=where,
        why="texts end in command lines and files that others can read",
        fix=f"`secrets: [{name}]` gives it to the step as a variable of that name",
    )


def _unknown(name: str, known: Mapping[str, str], where: str) -> UsageError:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return UsageError(
        "RDTL-U120",
        f"nothing is called {name}" + (f"; did you mean {near[0]}?" if near else ""),
        where=where,
        why="an unknown name would stand for nothing, and a path would end early",
        fix=f"known: {', '.join(sorted(known))}; for the characters themselves write $${{",
    )
