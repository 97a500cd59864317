"""Reads a graph from its JSON form and refuses what could never run.

Standard library only, Python 3.10, as :mod:`launcher.core.dag`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from launcher.core.dag import (
    VERSION,
    Graph,
    Limit,
    Marker,
    Signature,
    Step,
    Verify,
    cannot_run,
)

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
SEVERITIES = ("error", "warning")
REMEDIES = ("retry", "wait-apt-lock", "halve-micro-batch")


def from_dict(data: Mapping[str, Any]) -> Graph:
    """The graph of its JSON form, checked; UsageError RDTL-B051 for anything that is none."""
    name = str(data.get("name", "?"))
    try:
        if data.get("version") != VERSION:
            raise ValueError(f"version {data.get('version')!r} is not {VERSION}")
        steps = tuple(_step(step) for step in data["steps"])
        graph = Graph(**{**data, "steps": steps})
    except (KeyError, TypeError, ValueError) as error:
        raise cannot_run(name, f"{type(error).__name__}: {error}") from error
    check(graph)
    return graph


def _step(data: Mapping[str, Any]) -> Step:
    made: dict[str, Any] = {"verify": Verify(**_tuples(data.get("verify") or {}))}
    made["signatures"] = tuple(signature(each) for each in data.get("signatures", ()))
    made["markers"] = tuple(Marker(**each) for each in data.get("markers", ()))
    return Step(**{**_tuples(data), **made})


def signature(data: Mapping[str, Any]) -> Signature:
    """The signature of its JSON form; TypeError for unknown keys."""
    limit = data.get("limit")
    return Signature(**{**data, "limit": Limit(**limit) if limit else None})


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def check(graph: Graph) -> None:
    """Raise UsageError RDTL-B051 with the first thing that could never run."""
    names = [step.name for step in graph.steps]
    for step in graph.steps:
        for problem in problems(step, names, graph.tokens):
            raise cannot_run(f"{graph.name}, step {step.name}", problem)
    graph.order()


def problems(step: Step, names: list[str], tokens: Mapping[str, int]) -> list[str]:
    """Why a step could never run, beside a cycle."""
    found = []
    if not NAME.fullmatch(step.name):
        found.append("its name is not made of a-z, 0-9, _ and -")
    if names.count(step.name) > 1:
        found.append("there are two steps of this name")
    if bool(step.argv) == bool(step.script):
        found.append("it needs either argv or script")
    found += [f"needs {need!r}, which is no step" for need in step.needs if need not in names]
    found += [
        f"wants {count} of resource {name!r}; the recipe has {tokens.get(name, 0)}"
        for name, count in step.resources.items()
        if not 0 <= count <= tokens.get(name, 0)
    ]
    wanted = {*step.remedies, *(s.remedy for s in step.signatures if s.remedy)}
    found += [f"{remedy!r} is no remedy" for remedy in sorted(wanted.difference(REMEDIES))]
    return found + _bad_patterns(step)


def _bad_patterns(step: Step) -> list[str]:
    found = []
    every: list[Signature | Marker] = [*step.signatures, *step.markers]
    for watched in every:
        if watched.severity not in SEVERITIES:
            found.append(f"{watched.severity!r} is no severity")
        try:
            groups = re.compile(watched.pattern).groupindex
        except re.error as error:
            found.append(f"{watched.pattern!r} is no pattern: {error}")
            continue
        wanted = [*watched.expect] if isinstance(watched, Marker) else _limited(watched)
        found += [f"{watched.pattern!r} has no group {g!r}" for g in wanted if g not in groups]
    return found


def _limited(signature: Signature) -> list[str]:
    if not signature.limit:
        return []
    step = ["step"] if signature.limit.from_step is not None else []
    return [signature.limit.group, *step]
