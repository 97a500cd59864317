"""What a cluster tells of itself, beside what the site file says of it: for ``rdtl doctor``."""

from __future__ import annotations

import os
from pathlib import Path

from launcher.core.checks import Finding, NothingToLookAtError
from launcher.sites import Site, require_scheduler
from launcher.submit import limits, parse
from launcher.submit.clients import Clients, clean_environment
from launcher.submit.parse import NodeKind

SINFO = ["sinfo", "--exact", "--noheader", parse.NODES_FORMAT]


def cluster(site: Site, runs_dir: Path) -> list[Finding]:
    """Limits of the cluster, and whether the partition's nodes are as large as the site says."""
    if site.kind != "slurm":
        raise NothingToLookAtError(f"a {site.kind} site has no scheduler")
    require_scheduler("slurm")
    clients = Clients(clean_environment(os.environ, site.environment), lambda text: None)
    found, printed = limits.read(clients, site), clients.ask(SINFO)
    if found is None or printed is None:
        return [
            Finding(
                "RDTL-S032",
                "error",
                "the controller does not answer, so its limits are unknown",
                fix="look at the cluster (sinfo), then run rdtl doctor again",
            )
        ]
    return [tell(found), *compare(site, parse.nodes(printed))]


def tell(found: limits.Limits) -> Finding:
    """The limits as one line."""
    parts = [
        f"Slurm {found.version}",
        f"arrays of at most {found.array_tasks or 'any number of'} tasks",
        f"at most {found.queued_tasks or 'any number of'} tasks queued",
        "accounting" if found.accounting else "no accounting: ends come from markers and squeue",
    ]
    return Finding("RDTL-S002", "ok", ", ".join(parts))


def compare(site: Site, kinds: list[NodeKind]) -> list[Finding]:
    """A finding for each number of the site file that the partition's nodes do not reach, of
    several partitions the one with the fewest. Pure."""
    if not site.partitions:
        return _compare(site, "(default)", kinds)
    mine = {name: [k for k in kinds if k.partition == name] for name in site.partitions}
    return min((_compare(site, name, of) for name, of in mine.items()), key=len)


def _compare(site: Site, name: str, mine: list[NodeKind]) -> list[Finding]:
    offers = {
        "nodes": (site.nodes, sum(kind.nodes for kind in mine)),
        "cpus_per_node": (site.cpus_per_node or 0, max((k.cpus for k in mine), default=0)),
        "max_memory_per_node_mb": (
            site.max_memory_per_node_mb or 0,
            max((kind.memory_mb for kind in mine), default=0),
        ),
        "gpus_per_node": (site.gpus_per_node, max((kind.gpus for kind in mine), default=0)),
    }
    return [
        Finding(
            "RDTL-S021",
            "error",
            f"the site says {key}: {said}, the cluster offers {offered}",
            where=f"partition {name}",
            why="what fits the site file would be refused, or wait for ever",
            fix=f"{key}: {offered} in the site file",
        )
        for key, (said, offered) in offers.items()
        if said > offered
    ]
