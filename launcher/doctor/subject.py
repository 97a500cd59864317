"""What is examined: a machine, a site, and a run that somebody means to start there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher import config as configs
from launcher.core.errors import UsageError
from launcher.core.plan import Plan
from launcher.placement import activation
from launcher.schema import RunConfig
from launcher.sites import Site, load
from launcher.staging.uri import is_uri
from rdt.spec import planned

WEIGHTS = ("train", "evaluate")
"""Sections that may name a checkpoint."""
SIMULATING = ("collect", "evaluate")
"""Sections, and the stages of their names, that run episodes."""
COMPUTING = frozenset((*WEIGHTS, *SIMULATING))
"""Stages of which it counts where they run: they load weights or run episodes."""

KINDS = ("demo", "evaluate", "pipelines", "train")
"""Folders of configurations of runs."""


@dataclass(frozen=True)
class Subject:
    """``config`` is a run configuration as jobs read it (JSON), ``source`` its file.

    None: no run is asked about; empty: a run without one, as of `rdtl run` or a recipe. ``bare``:
    stages that run in this environment, not in an image or one that the site activates.
    ``named`` is a checkpoint named beside the configuration. ``gpus``: some job may take one.
    """

    site_name: str
    site: Site
    runs_dir: Path
    config: dict[str, Any] | None = None
    source: Path | None = None
    named: str | None = None
    bare: frozenset[str] = COMPUTING
    gpus: bool = True

    def lacks(self, need: str) -> str:
        """Why a check with this need has nothing to look at; empty if it has."""
        return "" if not need or getattr(self, f"_{need}") else REASONS[need]

    def section(self, name: str) -> dict[str, Any] | None:
        """A section of the configuration, if it has it."""
        found: dict[str, Any] | None = (self.config or {}).get(name)
        return found

    def checkpoints(self) -> Iterator[tuple[str, str]]:
        """Key and place of every checkpoint that is named."""
        if self.named:
            yield "--checkpoint", self.named
        for name in WEIGHTS:
            if (section := self.section(name)) and section["checkpoint"]:
                yield f"{name}.checkpoint", section["checkpoint"]
        for number, place in enumerate((self.section("sweep") or {}).get("checkpoints", [])):
            yield f"sweep.checkpoints.{number}", place

    def uris(self) -> Iterator[tuple[str, str]]:
        """Key and URI of everything that lies in a store, or goes to one."""
        sets = (self.config or {}).get("dataset", {}).get("sets", [])
        named = [(f"dataset.sets.{number}.path", one["path"]) for number, one in enumerate(sets)]
        for name in WEIGHTS:
            section = self.section(name) or {}
            keys = ("vision", "language", "demonstrations")
            named += [(f"{name}.{key}", section[key]) for key in keys if section.get(key)]
        named += self.checkpoints()
        yield from ((key, place) for key, place in named if is_uri(place))
        if upload := self.section("upload"):
            yield "upload.uri", upload["uri"]

    @property
    def _config(self) -> bool:
        return bool(self.config)

    @property
    def _episodes(self) -> bool:
        return bool(self._simulating())

    @property
    def _gpus(self) -> bool:
        return self.gpus

    @property
    def _simulator(self) -> bool:
        return bool(self.bare & self._simulating())

    def _simulating(self) -> set[str]:
        """Stages that run episodes; all that may, where no run is asked about."""
        if not self.config:
            return set(SIMULATING) if self.config is None else set()
        evaluates = {"evaluate"} if self.section("evaluate") is not None else set()
        return evaluates | ({"collect"} if planned.collects(self.config) else set())


REASONS = {
    "config": "no configuration is named",
    "episodes": "this configuration runs no episodes",
    "gpus": "no job of this run takes a GPU",
    "simulator": "no episodes run in this environment",
}
"""Why a check has nothing to look at, by what it needs."""


def of_command(
    site_name: str, runs_dir: Path, config: str | None, settings: list[str], named: str | None
) -> Subject:
    """What ``rdtl doctor`` is asked to look at.

    ``config`` is a file, or KIND/NAME of the shipped ones. Raises UsageError as any command
    that reads a configuration.
    """
    site = load(site_name)
    bare = _bare(site)
    named = named and configs.place(named, may_be_id=True)
    if config is None:
        return Subject(site_name, site, runs_dir, named=named, bare=bare)
    path = _file(config)
    read = as_json(configs.load_run_config(path, settings, []))
    return Subject(site_name, site, runs_dir, read, path, named, bare)


def _file(config: str) -> Path:
    kind, _, name = config.rpartition("/")
    if Path(config).suffix:
        return configs.find(kind, config)
    if configs.names(kind):
        return configs.find(kind, name)
    known = [f"{kind}/{known}" for kind in KINDS for known in configs.names(kind)]
    named = [one for one in known if one.endswith(f"/{name}")]
    raise UsageError(
        "RDTL-U002",
        f"{config!r} does not say of which kind the configuration is",
        why="a name may stand in several: rdtl train and rdtl evaluate each have a demo",
        fix=f"write KIND/NAME: {', '.join(named or known)}",
    )


def _bare(site: Site) -> frozenset[str]:
    if site.runtime != "none":
        return frozenset()
    return frozenset(name for name in COMPUTING if not activation(site, name))


def of_plan(plan: Plan, site: Site, runs_dir: Path) -> Subject:
    """What is about to be submitted."""
    here = [stage.name for stage in plan.stages if not (stage.container or stage.activate)]
    config = plan.config if "dataset" in plan.config else {}
    gpus = any(stage.gpus_per_node for stage in plan.stages)
    return Subject(plan.site, site, runs_dir, config, bare=COMPUTING.intersection(here), gpus=gpus)


def as_json(config: RunConfig) -> dict[str, Any]:
    """The configuration as jobs read it."""
    return config.model_dump(mode="json")
