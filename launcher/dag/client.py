"""Brings a recipe's runner to a machine and speaks to it there.

The runner (:mod:`launcher.core.dag_box`) does the work and keeps the truth; everything here
may be repeated, by whomever and from wherever, and nothing is done twice.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import config, snapshot
from launcher.core import dag, dag_reading, dag_ship, files
from launcher.core.errors import EXIT_FAILED, EXIT_OK, RefusedError, UsageError
from launcher.dag import load, resolve, secrets
from launcher.dag.load import Loaded
from launcher.dag.places import Place

UNPACK = 'part="$1.$$.part" && mkdir -p "$part" && tar -xzf - -C "$part" && ' \
    'rm -rf "$1" && mv "$part" "$1"'  # fmt: skip


@dataclass(frozen=True)
class Order:
    """A recipe with all choices made, and where it runs."""

    loaded: Loaded | None
    """None where only somebody looks at what others have started."""
    graph: dag.Graph
    place: Place
    run: str
    """The run directory there."""

    def runner(self, verb: str, *words: str) -> list[str]:
        """The command there that asks the runner."""
        return [self.place.python, f"{self.run}/runner.pyz", verb, self.run, *words]

    def secrets(self) -> list[str]:
        """Names of the secrets that its steps use."""
        return sorted({name for step in self.graph.steps for name in step.secrets})


def order(
    place: Place,
    name: str,
    profile: str | None = None,
    values: Mapping[str, str] | None = None,
    run_name: str | None = None,
) -> Order:
    """The recipe ``name`` for ``place``. Raises as :func:`resolve.resolve`, and RemoteError."""
    loaded = load.load(name)
    run = resolve.run_directory(loaded.recipe, profile, place.root(), run_name)
    graph = resolve.resolve(loaded, run, profile, values)
    dag_reading.check(graph)
    return Order(loaded, graph, place, run)


def begun(
    place: Place, name: str, profile: str | None = None, run_name: str | None = None
) -> Order:
    """A recipe as it was started there, whatever its choices were then, by whomever.

    ``name`` is the recipe's, or that of its run there. Raises UsageError RDTL-U138 if there is
    no such run.
    """
    root = place.root()
    if name.endswith((".yaml", ".yml")) or name in load.names():
        run = resolve.run_directory(load.load(name).recipe, profile, root, run_name)
    else:
        run = f"{root}/{run_name or name}"
    text = text_there(place, run)
    if not text:
        listed = place.run(["sh", "-c", 'ls "$1" 2>/dev/null || true', "sh", root]).split()
        raise UsageError(
            "RDTL-U138",
            f"{name} was not started on {place.name}",
            where=run,
            why="another profile, name or machine is another run",
            fix=f"runs there: {', '.join(listed) or 'none'}; --profile, --name and --host choose",
        )
    return Order(None, dag_reading.from_dict(json.loads(text)), place, run)


def references(what: Order, given: Sequence[str]) -> dict[str, str]:
    """Where its secrets lie. Raises as :func:`secrets.references`."""
    known = what.loaded.recipe.secrets if what.loaded else what.secrets()
    return secrets.references(given, known, what.graph.name)


def secret_values(what: Order, references: Mapping[str, str]) -> dict[str, str]:
    """Values of all secrets that its steps use. Raises as :func:`secrets.read`."""
    return secrets.read(what.secrets(), references, what.loaded.recipe if what.loaded else None)


def start(what: Order, values: Callable[[], Mapping[str, str]]) -> int | None:
    """Send what is needed and start the runner; ``values`` is asked for the secrets only if
    none is at work.

    Returns the number of the last event before it, or None where a runner is at work already,
    also one that somebody started meanwhile. Raises RefusedError RDTL-U137 when that one runs
    another graph, and as ``values``.
    """
    known = status(what)
    if not known.get("alive"):
        given = values()
        send(what)
        said = json.loads(what.place.run(*_with_graph(what, "start", given)))
        if said["state"] == "started":
            return int(known.get("seq", 0))
    _require_same(what)
    return None


def _with_graph(what: Order, verb: str, given: Mapping[str, str]) -> tuple[list[str], bytes]:
    """The command that brings the graph and secrets along, and its standard input."""
    lines = secrets.as_lines({name: given[name] for name in what.secrets() if name in given})
    graph = json.dumps(what.graph.to_dict()).encode()
    return what.runner(verb, "--graph", "--secrets", "-"), graph + b"\n" + lines


def _require_same(what: Order) -> None:
    if text_there(what.place, what.run) != text(what):
        raise RefusedError(
            "RDTL-U137",
            "another form of this recipe runs there",
            where=f"{what.place.name}: {what.run}",
            why="its steps would change while they run",
            fix="`rdtl recipe attach` follows it, `rdtl recipe stop` ends it",
        )


def text_there(place: Place, run: str) -> str:
    """The graph that lies there; empty before the first start."""
    script = 'if [ -f "$1" ]; then cat "$1"; fi'
    return place.run(["sh", "-c", script, "sh", f"{run}/dag.json"])


def status(what: Order) -> dict[str, Any]:
    """What the runner's files say: alive, rc, steps; empty before the first start."""
    script = 'if [ -f "$1/dag.json" ]; then exec "$2" "$1/runner.pyz" status "$1"; fi'
    said = what.place.run(["sh", "-c", script, "sh", what.run, what.place.python])
    found: dict[str, Any] = json.loads(said or "{}")
    return found


def plan(what: Order, given: Mapping[str, str]) -> list[dict[str, Any]]:
    """What would run, what be skipped, and why; nothing is sent under a runner at work."""
    if not status(what).get("alive"):
        send(what)
    found: list[dict[str, Any]] = json.loads(what.place.run(*_with_graph(what, "plan", given)))
    return found


def stop(what: Order) -> str:
    """End the runner and all steps; what it said."""
    return str(json.loads(what.place.run(what.runner("stop")))["state"])


def send(what: Order) -> None:
    """Files, code and runner. The graph comes with the start: a folder without one never began."""
    place, run, loaded = what.place, what.run, what.loaded
    assert loaded is not None, "an order that was only looked up sends nothing"
    for name in loaded.recipe.files:
        content = (loaded.path.parent / name).read_bytes()
        place.put(f"{run}/files/{Path(name).name}", content)
    if loaded.recipe.code:
        place.run(["sh", "-c", UNPACK, "sh", f"{run}/code"], _code())
    with tempfile.TemporaryDirectory() as folder:
        dag_ship.write(archive := Path(folder) / "runner.pyz")
        place.put(f"{run}/runner.pyz", archive.read_bytes())


def text(what: Order) -> str:
    """The graph as it lies there."""
    return files.dump_json(what.graph.to_dict())


def _code() -> bytes:
    """This installation's packages and shipped configurations as they are, packed."""
    packed = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=packed, mode="w:gz") as tar:
        snapshot.copy_product(Path(folder) / "code")
        tar.add(Path(folder) / "code", arcname=".")
        tar.add(config.config_roots()[-1], arcname="configs")
    return packed.getvalue()


def verify(what: Order, steps: Sequence[str], given: Mapping[str, str]) -> list[dict[str, Any]]:
    """Prove finished steps again, deeply: ``{step, good, why}`` of each.

    Raises UsageError RDTL-U122 for names that are no step with a proof, and as :meth:`Place.run`.
    """
    proven = [step.name for step in what.graph.steps if step.verify.deep or step.verify.cheap]
    resolve.require_known("step with a proof", steps, proven, what.graph.name)
    lines = secrets.as_lines({name: given[name] for name in what.secrets()})
    command = what.runner("verify", *steps, "--secrets", "-")
    done = subprocess.run(what.place.argv(command), input=lines, capture_output=True, check=False)
    ended = done.returncode in (EXIT_OK, EXIT_FAILED)
    found = [json.loads(line) for line in done.stdout.splitlines()] if ended else []
    good = all(line["good"] for line in found)
    if not ended or good != (done.returncode == EXIT_OK):  # it broke before it had proven all
        raise what.place.failed(command, done.returncode, done.stderr.decode("utf-8", "replace"))
    return found
