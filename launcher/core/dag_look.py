"""What a run directory holds, what would run now, and whether what was done is still good."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.core import dag, dag_steps
from launcher.core.dag_files import BoxRun, Silent
from launcher.core.signatures import Failure


def status(run: BoxRun) -> dict[str, Any]:
    """What there is: the runner, its exit code, and each step."""
    owner, graph = run.owner(), run.load()
    steps = {}
    for step in graph.steps:
        state = run.state(step.name)
        known = state.get("status", "waiting")
        if known == "running" and owner is None:
            known = "interrupted"
        steps[step.name] = {"status": known, "seconds": state.get("seconds"), "at": state.get("at")}
    events = run.told()
    return {
        "name": graph.name,
        "alive": owner is not None,
        "pid": owner.pid if owner else None,
        "rc": int(run.rc.read_text()) if run.rc.exists() else None,
        "seq": events[-1]["seq"] if events else 0,
        "steps": steps,
    }


def _box(run: BoxRun, graph: dag.Graph, secrets: Mapping[str, str]) -> dag_steps.Box:
    """For looking: nothing is told or saved."""
    root = Path(graph.working_directory).expanduser()
    return dag_steps.Box(run, root, Silent(), secrets, "", threading.Event())


def plan(run: BoxRun, graph: dag.Graph, secrets: Mapping[str, str]) -> list[dict[str, Any]]:
    """What would run and what be skipped if the runner started now, and why."""
    box, said = _box(run, graph, secrets), []
    fingerprints: dict[str, str] = {}
    for step in graph.order():
        found = dag_steps.look(box, step, [fingerprints[need] for need in step.needs])
        fingerprints[step.name] = found.fingerprint
        found = dag_steps.look_closer(box, step, found) if found.skip else found
        why = found.failure.reason if found.failure else found.why
        said.append({"step": step.name, "would": "skip" if found.skip else "run", "why": why})
    return said


def verify(
    run: BoxRun, names: list[str], secrets: Mapping[str, str]
) -> Iterator[tuple[str, Failure | None]]:
    """Prove finished steps again, deeply where the recipe says how; None for those still good."""
    graph = run.load()
    box = _box(run, graph, secrets)
    for step in graph.order():
        proof = step.verify.deep or step.verify.cheap
        if proof and (not names or step.name in names):
            yield step.name, dag_steps.prove(box, step, proof)
