"""The plan: pure data that says everything about what will run.

A plan is written to ``RUN/plan.json`` before anything is submitted and never
changes; node tasks and jobs read it. Nothing downstream decides anything that
is not in it, except where a stage finds itself (rank, address, attempt).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from launcher.core import files
from launcher.core.runtimes import Container, container_from_dict


@dataclass(frozen=True)
class Stage:
    """One node of the plan's graph: an argv, an array of tasks, resources, dependencies.

    ``argv`` is started once per node (``per="node"``) or once per GPU with RANK
    set (``per="gpu"``). ``array`` tasks are independent; each takes ``nodes``
    nodes. ``needs`` names stages that must end first: well (``needs_ended``
    False) or in any way (True: it reads markers itself). ``own_code`` puts the
    run's code snapshot on PYTHONPATH. ``container`` is what the argv runs in;
    without one, ``activate`` holds shell lines that come first (a virtual
    environment, modules). ``beside`` is a module with its arguments that runs on the first
    node while the stage does (uploads). Memory is in MB per node, ``minutes`` is the
    wall-clock limit of one task.
    """

    name: str
    argv: tuple[str, ...]
    needs: tuple[str, ...] = ()
    needs_ended: bool = False
    array: int = 1
    nodes: int = 1
    ranks_per_node: int = 1
    per: Literal["node", "gpu"] = "node"
    gpus_per_node: int = 0
    cpus: int = 1
    memory_mb: int = 1000
    minutes: int = 60
    environment: dict[str, str] = field(default_factory=dict)
    working_directory: str | None = None
    own_code: bool = True
    container: Container | None = None
    activate: str = ""
    beside: tuple[str, ...] = ()
    about: str = ""


@dataclass(frozen=True)
class Plan:
    """Stages in an order in which dependencies come first, and the resolved configuration."""

    name: str
    site: str
    stages: tuple[Stage, ...]
    config: dict[str, Any]

    def stage(self, name: str) -> Stage:
        """The stage called ``name``; KeyError if there is none."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """JSON form; :func:`read` is its inverse."""
        return asdict(self)


def read(path: Path) -> Plan:
    """Load a plan that :meth:`Plan.to_dict` wrote."""
    return from_dict(files.read_json(path))


def from_dict(data: dict[str, Any]) -> Plan:
    """The inverse of :meth:`Plan.to_dict`."""
    stages = []
    for stage in data["stages"]:
        values = dict(stage)
        values["argv"] = tuple(values["argv"])
        values["needs"] = tuple(values["needs"])
        values["beside"] = tuple(values.get("beside", ()))
        if values.get("container"):
            values["container"] = container_from_dict(values["container"])
        stages.append(Stage(**values))
    return Plan(data["name"], data["site"], tuple(stages), data["config"])
