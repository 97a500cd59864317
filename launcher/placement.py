"""Where a stage runs: in its container with what it may see, or in the site's environment. Pure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from launcher.core.errors import UsageError
from launcher.core.plan import Stage
from launcher.core.runs import RunDir
from launcher.core.runtimes import IMAGE_PYTHON, Bind, Container
from launcher.schema import RunConfig
from launcher.sites import Site, memory_mb
from rdt.spec import planned

PYTHON = "<python>"
"""Stands for the interpreter until :func:`place` knows where a stage runs."""

WEIGHTS = (".safetensors", ".bin", ".pt")
INNER = ("ema", "pytorch_model")
"""Folders of a checkpoint whose config.json lies one above."""

OUTSIDE = ("stage", "report")
"""Stages that are programs of the launcher and run in its own environment."""

MEMORY = "MB of memory per node"


def place(
    stage: Stage,
    site: Site,
    run: RunDir,
    container: Container | None,
    visible: list[Path],
    written: Sequence[Path] = (),
) -> Stage:
    """``stage`` in its container, or in the site's environment; the report stays outside.

    In the container it sees the run directory (writable), the run's code snapshot
    (read-only), what ``visible`` names, what ``written`` names (writable), and what the
    site binds. With GPUs it gets that share of the node's cores.
    """
    stage = replace(stage, cpus=max(stage.cpus, _share_of_cores(stage, site)))
    if container is None or stage.name in OUTSIDE:
        activate = "" if stage.name in OUTSIDE else activation(site, stage.name)
        python = "python" if activate else sys.executable
        return replace(stage, argv=_with_python(stage.argv, python), activate=activate)
    root, code = str(run.root), str(run.code)
    seen = [
        Bind(str(path), str(path), read_only=stage.own_code)
        for path in visible
        if run.root not in (path, *path.parents)  # it is bound already
    ]
    seen += [Bind(str(path), str(path), read_only=False) for path in written]
    binds = (
        Bind(root, root, read_only=False),
        *([Bind(code, code)] if stage.own_code else []),
        *seen,
        *(parse_bind(text) for text in site.binds),
    )
    cache = {"NUMBA_CACHE_DIR": f"{root}/cache/numba"} if stage.own_code else {}
    return replace(
        stage,
        argv=_with_python(stage.argv, IMAGE_PYTHON),
        container=replace(container, binds=binds, passed=tuple(site.pass_environment)),
        # Compiled once a run, not once a process: the image itself cannot be written.
        environment={**stage.environment, **cache},
    )


def activation(site: Site, stage: str) -> str:
    """Shell lines of the site before this stage's command where it runs in no container."""
    return site.activate.get(stage, site.activate.get("default", ""))


def _share_of_cores(stage: Stage, site: Site) -> int:
    """As much of a node's cores as the stage takes of its GPUs.

    Beside each rank work the threads that read ahead, write checkpoints and exchange gradients.
    """
    return (site.cpus_per_node or 0) * stage.gpus_per_node // max(site.gpus_per_node, 1)


def _with_python(argv: tuple[str, ...], python: str) -> tuple[str, ...]:
    return (python, *argv[1:]) if argv[0] == PYTHON else argv


def named_files(config: RunConfig) -> list[Path]:
    """What jobs of a configuration read by its path (absolute); a container binds no other."""
    reads = planned.reads_demonstrations(config.model_dump(mode="json"))
    named = [Path(entry.path) for entry in config.dataset.sets if reads]
    weights: list[str | None] = []
    for section in (config.train, config.evaluate):
        if section:
            named += [Path(name) for name in (section.vision, section.language) if name]
            weights.append(section.checkpoint)
    if evaluate := config.evaluate:
        others = (evaluate.demonstrations, evaluate.server_token)
        named += [Path(name) for name in others if name]
    weights += config.sweep.checkpoints if config.sweep else []
    named += [_with_config(Path(name)) for name in weights if name]
    return [path for path in named if path.is_absolute()]  # what is not is the id of a hub


def _with_config(checkpoint: Path) -> Path:
    """The folder in which the config.json and card of a file of weights lie."""
    if checkpoint.suffix not in WEIGHTS:
        return checkpoint
    folder = checkpoint.parent
    return folder.parent if folder.name in INNER else folder


def written_folders(config: RunConfig) -> list[Path]:
    """What a configuration names for jobs to write in (absolute)."""
    return [Path(config.dataset.buffer)] if config.dataset.buffer else []


def parse_bind(text: str) -> Bind:
    """A bind of a site file: ``SOURCE``, ``SOURCE:TARGET``, each with ``:rw`` at the end."""
    body, _, mode = text.rpartition(":")
    if mode not in ("rw", "ro"):
        body, mode = text, "ro"
    source, _, target = body.partition(":")
    if not source.startswith("/") or (target and not target.startswith("/")):
        raise UsageError(
            "RDTL-U016",
            f"a bind needs absolute paths, not {text!r}",
            where="binds in the site file",
            fix="binds: [/scratch/me:rw, /data/libero:/data]",
        )
    return Bind(source, target or source, read_only=mode == "ro")


def require_fit(
    stage: Stage, site_name: str, site: Site, less_memory: str = "ask for less"
) -> None:
    """UsageError RDTL-U007 when a site can never run the stage: it would pend for ever, or die.

    ``less_memory`` says how the stage would want less of it.
    """
    offers = {
        "nodes": (stage.nodes, site.nodes),
        "GPUs per node": (stage.gpus_per_node, site.gpus_per_node),
        MEMORY: (stage.memory_mb, memory_mb(site) or stage.memory_mb),
    }
    if site.hosts:
        slots = min(len(host.devices()) for host in site.hosts)
        offers["slots per host"] = (max(stage.ranks_per_node, stage.gpus_per_node), slots)
    for what, (wanted, offered) in offers.items():
        if wanted > offered:
            less = less_memory if what == MEMORY else "ask for less"
            raise UsageError(
                "RDTL-U007",
                f"stage {stage.name} wants {wanted} {what}, site {site_name} offers {offered}",
                where=f"configs/sites/{site_name}.yaml",
                why="the scheduler would let it wait for ever" if site.kind == "slurm" else "",
                fix=f"{less}, choose another --site, or correct the site file",
            )
