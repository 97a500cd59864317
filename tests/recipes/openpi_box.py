"""A box on this machine for ``openpi/waypoint-ae`` and the world of stand-ins around it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import launcher
from launcher.core import dag_ship, files
from launcher.core.dag import Graph
from launcher.dag import load, resolve
from tests.recipes.standins.world import World

RECIPE = "openpi/waypoint-ae"
CANARY = "canary0123456789"
SECRETS = f'RCLONE_TOKEN={{"access_token":"{CANARY}"}}\nWANDB_API_KEY=wandb_v1_{CANARY}\n'
STATISTICS = ("numpy", "google-crc32c", "simplejpeg", "pillow")


@dataclass(frozen=True)
class Outcome:
    """How a run ended: exit code, and its own events."""

    rc: int
    events: list[dict[str, Any]]

    def steps(self, event: str) -> list[str]:
        """Steps of which this was told, in order."""
        return [one["step"] for one in self.events if one["event"] == event]

    def failure(self) -> tuple[str, str]:
        """Step and code of the first failure."""
        event = next(one for one in self.events if one["event"] == "step_fail")
        return event["step"], event["code"]

    def values(self, marker: str) -> dict[str, Any]:
        """What the last marker of this name read."""
        found = [e for e in self.events if e["event"] == "marker" and e["name"] == marker]
        return dict(found[-1]["values"])


@dataclass
class Box:
    """Runs graphs in ``folder`` with the environment of a bare machine."""

    world: World
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "home").mkdir(parents=True)
        uv = Path(sys.executable).with_name("uv")
        packages = [word for name in STATISTICS for word in ("--with", name)]
        # What the box itself fetches: here it is fetched once, and then comes from uv's cache. Not
        # from the checkout: uv would find a .venv there that has the packages, and fetch nothing.
        subprocess.run(
            [uv, "run", "-q", "--no-project", "--python", "3.11", *packages, "python", "-c", "1"],
            check=True,
            timeout=300,
            cwd=self.folder,
            env={key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"},
        )
        cache = subprocess.run([uv, "cache", "dir"], check=True, capture_output=True, text=True)
        own = {key: value for key, value in os.environ.items() if key.startswith(("UV_", "SSL_"))}
        self.environment = {
            **own,
            "PATH": self.world.path,
            "HOME": str(self.folder / "home"),
            "UV_CACHE_DIR": cache.stdout.strip(),
            "UV_FIND_LINKS": str(self.world.folder / "wheels"),
            "UV_OFFLINE": "1",
        }

    def graph(self, recipe: str = RECIPE, **settings: str) -> Graph:
        """The recipe's graph for this box."""
        values = {**self.world.settings, **settings}
        return resolve.resolve(load.load(recipe), str(self.run_folder), "fixed", values)

    @property
    def run_folder(self) -> Path:
        return self.folder / "run"

    def only(self, names: Sequence[str], recipe: str = RECIPE, **settings: str) -> Graph:
        """Some steps alone, on what an earlier run left."""
        graph = self.graph(recipe, **settings)
        steps = tuple(replace(s, needs=(), retries=0) for s in graph.steps if s.name in names)
        return replace(graph, steps=steps)

    def run(self, graph: Graph) -> Outcome:
        """Run a graph with this machine's own python3."""
        run = self.run_folder
        run.mkdir(exist_ok=True)
        files.write_json(run / "dag.json", graph.to_dict())
        dag_ship.write(run / "runner.pyz")
        if not (run / "code").exists():
            (run / "code").symlink_to(Path(launcher.__file__).parent.parent)
        before = len(self._events())
        done = subprocess.run(
            ["python3", "runner.pyz", "run", str(run), "--secrets", "-"],
            cwd=run,
            env=self.environment,
            input=SECRETS.encode(),
            capture_output=True,
            timeout=240,
            check=False,
        )
        return Outcome(done.returncode, self._events()[before:])

    def fresh(self, graph: Graph) -> Outcome:
        """The same as if nothing were known of these steps."""
        for step in graph.steps:
            shutil.rmtree(self.run_folder / "steps" / step.name, ignore_errors=True)
        return self.run(graph)

    def _events(self) -> list[dict[str, Any]]:
        path = self.run_folder / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
