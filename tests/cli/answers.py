"""Holds what commands print for programs to the committed schemas."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema

SCHEMAS = Path(__file__).parents[2] / "docs" / "reference" / "json"


def require(arguments: Sequence[str], text: str) -> None:
    """AssertionError when ``text`` is not what the schema of ``rdtl ARGUMENTS`` says."""
    validator = schema_of(arguments)
    if validator is None:
        return
    wrong = jsonschema.exceptions.best_match(validator.iter_errors(json.loads(text)))
    assert wrong is None, f"{' '.join(arguments)}: {wrong.json_path}: {wrong.message}"


def schema_of(arguments: Sequence[str]) -> Any | None:
    """The validator for a command, None when its answers have no schema."""
    for words in (arguments[:2], arguments[:1]):
        name = "-".join(words).removeprefix("--")
        if (SCHEMAS / f"{name}.json").exists():
            return _validator(name)
    return None


@functools.cache
def _validator(name: str) -> Any:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    return jsonschema.Draft202012Validator(schema)
