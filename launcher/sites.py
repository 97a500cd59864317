"""Sites: where jobs run. A site is a small YAML file, ``configs/sites/NAME.yaml``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from launcher import config
from launcher.core.errors import RefusedError, UsageError
from launcher.core.runs import RunDir
from launcher.hosts import Host, Network
from launcher.schema_base import Section


class Site(Section):
    """Where jobs run and what one node of it offers."""

    kind: Literal["local", "slurm", "hosts"]
    """local: processes on this machine; slurm: a cluster whose sbatch is on the PATH here; hosts:
    the machines of `hosts`, over ssh."""
    hosts: list[Host] = Field(default=[])
    """Machines of a site of kind hosts: a name, or `{host: n1, slots: 8, exclude: [0]}` each. All
    see the runs directory under the same path."""
    network: Network = Network()
    """What hosts talk over."""
    ssh: str | None = None
    """Login node as ssh knows it (an alias of ~/.ssh/config is best): commands for this site then
    run there."""
    ssh_options: list[str] = Field(default=[])
    """Further options for ssh, to the login node or to the hosts."""
    remote_directory: str | None = None
    """Absolute directory on the login node for code and runs; the compute nodes must see it."""
    remote_rdtl: list[str] = Field(default=["rdtl"])
    """How rdtl is called on the login node, e.g. [/home/me/venv/bin/rdtl]."""
    partition: str | None = None
    """Slurm partition (--partition), or several with commas between: whichever starts it first."""
    account: str | None = None
    """Slurm account (--account)."""
    qos: str | None = None
    """Slurm quality of service (--qos)."""
    tasks_at_once: int | None = Field(default=None, gt=0)
    """Tasks of one stage that may run at the same time (%N of an array); unset: no such limit."""
    max_queued_tasks: int | None = Field(default=None, gt=0)
    """Tasks that may wait or run at the same time, where the cluster does not tell its limit; the
    rest is submitted as they end."""
    max_minutes: int | None = Field(default=None, gt=0)
    """Most time that the Slurm job of a stage asks for, such as the partition's MaxTime; unset:
    train 24 h, evaluate and stage 4 h, others at most 1 h. `--minutes` of a command stays."""
    environment: dict[str, str] = Field(default={})
    """Variables for every call of the scheduler and for the jobs; no secrets."""
    max_memory_per_node_mb: int | None = None
    """Memory of one node in MB; unset: read from this machine (local) or not checked."""
    cpus_per_node: int | None = None
    """CPU cores of one node; unset: as above. A stage gets the share that it takes of the GPUs."""
    nodes: int = 1
    """Nodes that one job may use; of a site of kind hosts, unset: all."""
    gpus_per_node: int = 0
    """GPUs of one node."""
    gpu_type: str | None = None
    """Kind of GPU to ask for where a cluster has several, as Slurm calls it (a100, h100)."""
    runtime: Literal["none", "apptainer", "docker", "pyxis"] = "none"
    """What jobs run in; none: the environment of this installation, or `activate`."""
    image: str | None = None
    """Image of the jobs: a name of configs/images, a .sif file, or a Docker reference. Unset:
    all-cpu, or all-gpu where nodes have GPUs."""
    apptainer: str = "apptainer"
    """Apptainer's program on the nodes, by name or path."""
    apptainer_options: list[str] = Field(default=[])
    """Options for `apptainer exec` on this site; unset: what a node needs is found out there."""
    binds: list[str] = Field(default=[])
    """More of the nodes that jobs in a container may see: SOURCE, SOURCE:TARGET, with :rw at the
    end writable."""
    pass_environment: list[str] = Field(default=[])
    """Names of further variables that jobs in a container get."""
    activate: dict[str, str] = Field(default={})
    """Shell lines before a stage's command where runtime is none, by stage name, or `default`:
    `source ~/venv/bin/activate`, `module load …`, `conda activate …`."""
    assets: str | None = None
    """Directory for staged data and checkpoints, shared by runs; all nodes must see it. Unset:
    $XDG_CACHE_HOME/rdtl/assets or ~/.cache/rdtl/assets."""
    node_local: str | None = None
    """Directory on each node's own disk, e.g. /tmp: containers read staged assets from a copy
    there, made once per node where there is room. Unset: from the shared cache."""
    shared_directory: str | None = None
    """A directory that all nodes see under the same path; new runs that would not lie below it are
    refused (RDTL-S023), except on a local site. Unset: any."""

    @property
    def partitions(self) -> list[str]:
        """The partitions that sbatch may choose from; none: the cluster's default."""
        return self.partition.split(",") if self.partition else []

    @property
    def ends_with_launcher(self) -> bool:
        """Whether tasks live exactly as long as the launcher that started them."""
        return self.kind != "slurm"

    @model_validator(mode="before")
    @classmethod
    def _names_are_hosts(cls, data: dict[str, Any]) -> dict[str, Any]:
        hosts = data.get("hosts")
        if not isinstance(hosts, list) or not hosts:
            return data
        full = [{"host": one} if isinstance(one, str) else one for one in hosts]
        return {"nodes": len(full), **data, "hosts": full}

    @model_validator(mode="after")
    def _hosts_are_whole(self) -> Site:
        names = [host.host for host in self.hosts]
        if (self.kind == "hosts") != bool(names):
            raise ValueError("`hosts` belongs to kind hosts, and kind hosts needs it")
        if self.kind != "hosts" and self.network != Network():
            raise ValueError(
                "`network` belongs to kind hosts; elsewhere set GLOO_SOCKET_IFNAME and NCCL_… in "
                "`environment`"
            )
        if len(set(names)) < len(names) or self.nodes > max(1, len(names) or self.nodes):
            raise ValueError("a host is named twice, or `nodes` is above the number of hosts")
        return self


def load(name: str) -> Site:
    """The site called ``name``; UsageError RDTL-U002 when there is none."""
    try:
        path = config.find("sites", name)
    except UsageError as error:
        if name != "minislurm":
            raise
        raise UsageError(
            "RDTL-U010",
            "the test cluster is not up",
            where="configs/sites/minislurm.yaml does not exist",
            why="site minislurm is a real Slurm on this machine that is started on demand",
            fix="make cluster-up (as root), then run the same command again",
        ) from error
    return config.validate(Site, config.read_yaml(path), str(path))


def of_run(run: RunDir, name: str) -> Site:
    """The site of a run: as it is configured here, else as it was when the run was driven last.

    So a run can be looked at and continued from any directory, also by another user.
    """
    try:
        return load(name)
    except UsageError:
        if not run.site.exists():
            raise
        return config.validate(Site, config.read_yaml(run.site), str(run.site))


def assets_root(site: Site) -> Path:
    """Where the cache of staged assets lies."""
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(site.assets or f"{user}/rdtl/assets").expanduser().absolute()


def memory_mb(site: Site) -> int:
    """Memory of one node in MB: as the site says, else what is available on this machine.

    0 where nodes are other machines and the site does not say.
    """
    if site.max_memory_per_node_mb or site.kind != "local":
        return site.max_memory_per_node_mb or 0
    with Path("/proc/meminfo").open(encoding="ascii") as handle:
        values = dict(line.split(":", 1) for line in handle)
    return int(values["MemAvailable"].split()[0]) // 1024


def local_jobs(site: Site, memory_per_task_mb: int, wanted: int | None) -> int:
    """How many tasks run at once here: asked for, else as many as cores and memory carry."""
    cores = wanted or site.cpus_per_node or os.cpu_count() or 1
    return max(1, min(cores, memory_mb(site) // max(1, memory_per_task_mb)))


def require_shared(site: Site, root: Path) -> None:
    """RefusedError RDTL-S023 when a run at ``root`` would lie where other nodes do not see it.

    A link or another mount of the same directory is the same place.
    """
    if site.kind == "local" or site.shared_directory is None:
        return
    shared, above = Path(site.shared_directory), (root, *root.parents)
    found = shared.is_dir() and any(one.is_dir() and one.samefile(shared) for one in above)
    if found or shared in above:
        return
    raise RefusedError(
        "RDTL-S023",
        "the run would not lie below the site's shared directory",
        where=f"{root}; shared_directory: {shared}",
        why="code, ledger and checkpoints lie there: a node that does not see them runs nothing",
        fix=f"--runs-dir {shared}/runs (or RDTL_RUNS), or correct shared_directory of the site",
    )


def require_scheduler(name: str) -> None:
    """UsageError when sbatch is not on the PATH."""
    if shutil.which("sbatch") is None:
        raise UsageError(
            "RDTL-S030",
            f"site {name} is a Slurm cluster, but there is no sbatch here",
            where="PATH",
            fix="run rdtl on a login node of the cluster, or choose --site local",
        )
