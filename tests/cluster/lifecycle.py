"""Bringing a cluster up and down, and saying how it is: safe to kill and to repeat."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from tests.cluster import daemons, layout, network, processes
from tests.cluster.layout import Cluster, ClusterError
from tests.cluster.lock import exclusive

PROGRAMS = ("ip", "unshare", "munged", "slurmctld", "slurmd", "srun", "sinfo", "scancel")
ACCOUNTING_PROGRAMS = ("mariadbd", "mariadb", "mariadb-install-db", "slurmdbd", "sacctmgr")
INSTALL = "sh tests/cluster/install.sh"


def up(root: Path, nodes: int, accounting: bool, memory_mb: int) -> Cluster:
    """Bring the cluster up, or leave it when it is up; remains of a crash are removed first."""
    _check_machine(accounting)
    with exclusive():
        found = layout.load(root)
        if found and _is_up(*found):
            _check_same(found[0], nodes, accounting, memory_mb)
            print(f"already up: {_summary(found[0])}")
            return found[0]
        _remove(root)
        network_prefix, port = network.choose()
        cluster = Cluster(root, nodes, accounting, network_prefix, port, memory_mb)
        began = time.monotonic()
        _bring_up(cluster)
        print(f"up in {time.monotonic() - began:.1f} s: {_summary(cluster)}")
        return cluster


def _bring_up(cluster: Cluster) -> None:
    cluster.root.mkdir(mode=0o755, parents=True, exist_ok=True)
    layout.save(cluster, ready=False)
    try:
        daemons.prepare(cluster)
        network.create(cluster)
        daemons.start(cluster)
    except BaseException:
        # The directory stays for its logs; the next `up` or `down` removes it.
        daemons.stop(cluster)
        network.remove(cluster.root)
        raise
    cluster.site_file.parent.mkdir(parents=True, exist_ok=True)
    layout.write_whole(cluster.site_file, layout.site_text(cluster))
    layout.save(cluster, ready=True)


def down(root: Path) -> None:
    """Stop the cluster in ``root`` and remove everything of it; fine when there is none."""
    _check_root()
    with exclusive():
        began = time.monotonic()
        print(f"down in {time.monotonic() - began:.1f} s" if _remove(root) else "not up")


def _remove(root: Path) -> bool:
    """Remove whatever there is of the cluster in ``root``; False when there was nothing."""
    found = layout.load(root)
    if found is None:
        _check_unused(root)
    else:
        layout.save(found[0], ready=False)  # killed from here on, it is never taken for up
        found[0].site_file.unlink(missing_ok=True)
        daemons.stop(found[0])
    left = found is not None or bool(network.namespaces(root))
    network.remove(root)
    if root.exists():
        _remove_directory(root)
    return left


def _check_unused(root: Path) -> None:
    """Refuse a directory of somebody else's files; a killed `up` may have left half a marker."""
    own = f".{layout.marker(root).name}."
    if root.exists() and any(not path.name.startswith(own) for path in root.iterdir()):
        raise ClusterError(
            f"{root} is not empty and holds no test cluster\n"
            "  fix: give --root a directory that is new, empty or made by `up`",
            exit_status=2,
        )


def _remove_directory(root: Path) -> None:
    """The marker goes last: a removal that is killed half-way is continued by the next one."""
    for path in [path for path in root.iterdir() if path != layout.marker(root)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    layout.marker(root).unlink(missing_ok=True)
    root.rmdir()


def _is_up(cluster: Cluster, ready: bool) -> bool:
    records = processes.recorded(cluster.records).values()
    return ready and all(record.alive for record in records)


def _check_same(cluster: Cluster, nodes: int, accounting: bool, memory_mb: int) -> None:
    if (cluster.nodes, cluster.accounting, cluster.memory_mb) != (nodes, accounting, memory_mb):
        raise ClusterError(
            f"another cluster is up there: {_summary(cluster)}\n"
            "  fix: run `down` first, or choose another --root",
            exit_status=2,
        )


def status(root: Path) -> dict[str, Any]:
    """State ("up", "broken", "down"), nodes, daemons with their memory, and paths."""
    found = layout.load(root)
    if found is None:
        return {"state": "down", "root": str(root)}
    cluster, ready = found
    records = processes.recorded(cluster.records)
    listed = {
        name: {"pid": record.pid, "alive": record.alive, "memory_mb": _memory(record)}
        for name, record in records.items()
    }
    return {
        "state": "up" if _is_up(cluster, ready) else "broken",
        "root": str(root),
        "slurm_conf": str(cluster.slurm_conf),
        "site": str(cluster.site_file),
        "network": f"{cluster.network}.0/24",
        "accounting": cluster.accounting,
        "nodes": daemons.node_states(cluster),
        "namespaces": network.namespaces(root),
        "daemons": listed,
        "memory_mb": round(sum(entry["memory_mb"] for entry in listed.values()), 1),
    }


def _memory(record: processes.Record) -> float:
    return round(processes.memory_mb(record.pid), 1) if record.alive else 0.0


def kill_node(root: Path, node: str) -> None:
    """KILL everything that runs on ``node``; Slurm finds out by itself after SlurmdTimeout."""
    _check_root()
    found = layout.load(root)
    if found is None or node not in found[0].node_names:
        raise ClusterError(f"no node {node} in a cluster in {root}", exit_status=2)
    print(f"killed {daemons.kill_node(found[0], node)} processes of {node}")


def _summary(cluster: Cluster) -> str:
    return (
        f"{cluster.nodes} nodes, {'with' if cluster.accounting else 'no'} accounting, "
        f"{cluster.network}.0/24\n"
        f"  site  {cluster.site_file}\n"
        f"  try   SLURM_CONF={cluster.slurm_conf} srun -N {cluster.nodes} hostname"
    )


def _check_root() -> None:
    if os.geteuid() != 0:
        raise ClusterError(
            "this needs root: it makes network namespaces\n"
            f"  fix: sudo -E {sys.executable} -m tests.cluster.minislurm …",
            exit_status=2,
        )


def _check_machine(accounting: bool) -> None:
    _check_root()
    wanted = PROGRAMS + (ACCOUNTING_PROGRAMS if accounting else ())
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    missing = [name for name in wanted if shutil.which(name, path=path) is None]
    if missing:
        raise ClusterError(
            f"not installed: {', '.join(missing)}\n  fix: {INSTALL}   (Debian or Ubuntu, root)",
            exit_status=2,
        )
