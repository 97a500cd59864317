"""Can this cluster ever run this stage? Asked before anything is submitted.

sbatch accepts a job that no node can run on many clusters, and it then waits for
ever; or it refuses with words that name no number. Pure functions on what the
cluster told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launcher.core.errors import RefusedError
from launcher.core.plan import Stage
from launcher.submit import parse
from launcher.submit.parse import NodeKind


@dataclass(frozen=True)
class Cluster:
    """Partitions (words of ``scontrol show partition``) and their kinds of nodes."""

    partitions: dict[str, dict[str, str]]
    nodes: list[NodeKind]

    def default(self) -> str | None:
        """The partition that sbatch takes when none is named."""
        found = [n for n, words in self.partitions.items() if words.get("Default") == "YES"]
        return found[0] if found else None


@dataclass(frozen=True)
class Misfit:
    """One request that is too large: ``wanted`` of ``what``, at most ``offered``."""

    what: str
    wanted: int
    offered: int

    @property
    def lacking(self) -> float:
        """The share of what is wanted that is not offered."""
        return 1 - self.offered / self.wanted

    def nearest(self) -> str:
        """What to ask for instead."""
        return f"at most {self.offered} {self.what}" if self.offered else f"no {self.what}"

    def __str__(self) -> str:
        return f"{self.wanted} {self.what}, at most {self.offered}"


def check(stage: Stage, partitions: Sequence[str], cluster: Cluster) -> None:
    """RefusedError RDTL-S021 with the nearest request that fits, when ``stage`` cannot run.

    It runs where one of ``partitions`` takes it; none named: the cluster's default.
    """
    default = cluster.default()
    names = partitions or ([default] if default else [])
    unknown = [name for name in names if name not in cluster.partitions]
    if unknown:
        raise _refusal(
            stage,
            f"there is no partition {', '.join(unknown)}",
            "partitions: " + ", ".join(sorted(cluster.partitions)),
        )
    found = {name: misfits(stage, name, cluster) for name in names}
    if all(found.values()) and found:
        raise _too_large(stage, found, cluster)


def _too_large(stage: Stage, found: dict[str, list[Misfit]], cluster: Cluster) -> RefusedError:
    """No partition takes it; of those that were named the nearest is told."""
    name = min(found, key=lambda name: sum(misfit.lacking for misfit in found[name]))
    others = [p for p in cluster.partitions if p not in found and not misfits(stage, p, cluster)]
    nearest = "ask for " + ", ".join(m.nearest() for m in found[name]) + _how(stage, found[name])
    instead = (
        f"; or partition {' or '.join(sorted(others))}, which takes it as it is" if others else ""
    )
    asks = "; ".join(map(str, found[name]))
    return _refusal(stage, f"partition {name} cannot give it: {asks}", nearest + instead)


def _how(stage: Stage, found: list[Misfit]) -> str:
    """Where less time is asked for; it is no key of a configuration."""
    offered = [misfit.offered for misfit in found if misfit.what == "minutes"]
    if not offered:
        return ""
    key = "max_minutes: {} in the site file" if stage.own_code else "--minutes {}"
    return f" ({key.format(offered[0])})"


def _refusal(stage: Stage, what: str, fix: str) -> RefusedError:
    return RefusedError(
        "RDTL-S021",
        f"stage {stage.name} can never run on this cluster",
        where=what,
        why="Slurm would refuse it, or let it wait for ever; nothing was submitted",
        fix=fix,
    )


def misfits(stage: Stage, name: str, cluster: Cluster) -> list[Misfit]:
    """What of ``stage`` is larger than partition ``name`` allows or its nodes offer.

    Nodes are taken kind by kind: cores, memory and GPUs must come together. A
    partition whose nodes nobody lists (sinfo shows none) is judged by its limits only.
    """
    words = cluster.partitions[name]
    most_nodes = parse.number(words.get("MaxNodes", "")) or stage.nodes
    longest = parse.minutes(words.get("MaxTime", "")) or stage.minutes
    limits = [
        Misfit("minutes", stage.minutes, longest),
        Misfit("nodes", stage.nodes, most_nodes),
        Misfit(
            "cores per node",
            stage.cpus,
            parse.number(words.get("MaxCPUsPerNode", "")) or stage.cpus,
        ),
        Misfit("MB of memory per node", stage.memory_mb, _memory(words, stage)),
    ]
    found = [limit for limit in limits if limit.wanted > limit.offered]
    kinds = [kind for kind in cluster.nodes if kind.partition == name]
    return found + (_hardware(stage, kinds) if kinds else [])


def _memory(words: dict[str, str], stage: Stage) -> int:
    per_node = parse.number(words.get("MaxMemPerNode", ""))
    per_cpu = parse.number(words.get("MaxMemPerCPU", ""))
    return per_node or (per_cpu * stage.cpus if per_cpu else 0) or stage.memory_mb


def _hardware(stage: Stage, kinds: list[NodeKind]) -> list[Misfit]:
    """The misfits of the kind of node that comes nearest; none when enough nodes fit."""
    fitting = sum(kind.nodes for kind in kinds if not _of_kind(stage, kind))
    if fitting >= stage.nodes:
        return []
    if fitting:
        return [Misfit("nodes of this size", stage.nodes, fitting)]
    return min((_of_kind(stage, kind) for kind in kinds), key=len)


def _of_kind(stage: Stage, kind: NodeKind) -> list[Misfit]:
    pairs = [
        Misfit("cores per node", stage.cpus, kind.cpus),
        Misfit("MB of memory per node", stage.memory_mb, kind.memory_mb),
        Misfit("GPUs per node", stage.gpus_per_node, kind.gpus),
    ]
    return [pair for pair in pairs if pair.wanted > pair.offered]
