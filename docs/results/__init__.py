"""What ``--json`` prints, command by command: the models behind ``docs/reference/json/*.json``.

Where the program has a dataclass for it, that is the model. ``make docs`` writes the schemas;
the tests' ``rdtl()`` holds every answer to them, so an answer that changes changes its schema.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from docs.results import assets, problems, recipes, runs
from docs.results.problems import Error

RESULTS: dict[str, Any] = problems.RESULTS | runs.RESULTS | recipes.RESULTS | assets.RESULTS
"""Command → what it prints."""


def schemas() -> dict[str, dict[str, Any]]:
    """File name → JSON Schema, one for each command."""
    found = {}
    for command, model in RESULTS.items():
        schema = TypeAdapter(model | Error).json_schema()
        _close(schema)
        title = f"rdtl {command}" if command.startswith("-") else f"rdtl {command} --json"
        found[file_name(command)] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **schema,
            "title": title,
        }
    return found


def file_name(command: str) -> str:
    """Of the schema of a command, below docs/reference/json."""
    return f"{command.removeprefix('--').replace(' ', '-')}.json"


def _close(schema: Any) -> None:
    """Keys that no model names are mistakes: an answer has nothing that is not written down."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
        schema = list(schema.values())
    for inner in schema if isinstance(schema, list) else []:
        _close(inner)
