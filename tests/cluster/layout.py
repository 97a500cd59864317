"""One test cluster as data: its directory, names, addresses and configuration files.

Everything that is visible outside the cluster's directory (network namespaces,
the network device, files in /etc/netns) carries a tag made from the directory's
path. Remains of a crashed cluster are therefore found without any record.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import tempfile
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CPUS_PER_NODE = 4
MEMORY_PER_NODE_MB = 4600
MAX_NODES = 16
DEFAULT_PARTITION = "main"
SLURMD_PORT = 17818
DEFAULT_ROOT = Path(tempfile.gettempdir()) / f"rdtl-minislurm-{os.getuid()}"


class ClusterError(Exception):
    """What went wrong and what to do; ``exit_status`` is 2 for a machine that cannot host it."""

    def __init__(self, message: str, exit_status: int = 1):
        super().__init__(message)
        self.exit_status = exit_status


def write_whole(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace ``path`` by ``text`` as a whole; nobody without ``mode`` can ever read it."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        handle.write(text)
    temporary.replace(path)


@dataclass(frozen=True)
class Cluster:
    """Identity of one cluster; ``network`` is the first three bytes of its /24,
    ``memory_mb`` the memory of a node."""

    root: Path
    nodes: int
    accounting: bool
    network: str
    port: int
    memory_mb: int = MEMORY_PER_NODE_MB

    @property
    def tag(self) -> str:
        return tag_of(self.root)

    @property
    def node_names(self) -> list[str]:
        return [f"n{index}" for index in range(1, self.nodes + 1)]

    @property
    def host_address(self) -> str:
        return f"{self.network}.254"

    def node_address(self, node: str) -> str:
        """Address of ``node`` ("n3" has the last byte 3)."""
        return f"{self.network}.{node.removeprefix('n')}"

    def namespace(self, node: str) -> str:
        """Name of the node's network namespace, as ``ip netns`` lists it."""
        return f"{self.tag}-{node}"

    @property
    def slurm_conf(self) -> Path:
        return self.root / "etc" / "slurm.conf"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def records(self) -> Path:
        return self.root / "run"

    @property
    def munge_socket(self) -> Path:
        return self.root / "munge.sock"

    @property
    def database_socket(self) -> Path:
        return self.root / "mysock" / "s"

    @property
    def site_file(self) -> Path:
        """Site of the launcher: the shared one for the default cluster, else a private one."""
        if self.root == DEFAULT_ROOT:
            return REPOSITORY / "configs" / "sites" / "minislurm.yaml"
        return self.root / "minislurm.yaml"

    def environment(self) -> dict[str, str]:
        """Environment of daemons and our own Slurm commands: of the caller's only PATH."""
        path = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin"
        return {
            "PATH": path,
            "HOME": str(Path.home()),
            "LANG": "C.UTF-8",
            "SLURM_CONF": str(self.slurm_conf),
        }


def tag_of(root: Path) -> str:
    """Prefix of every name outside ``root`` (10 characters: device names end at 15)."""
    return "rdtl" + hashlib.sha256(str(root).encode()).hexdigest()[:6]


def marker(root: Path) -> Path:
    """The file that says "this directory belongs to a test cluster"."""
    return root / "cluster.json"


def save(cluster: Cluster, ready: bool) -> None:
    """Write the marker of ``cluster``; ``ready`` once the first job step has run."""
    data = {**asdict(cluster), "ready": ready}
    del data["root"]  # the directory that was asked for counts, never what a file in it says
    write_whole(marker(cluster.root), json.dumps(data) + "\n")


def load(root: Path) -> tuple[Cluster, bool] | None:
    """The cluster in ``root`` and whether it was ready once; None when there is none.

    Raises what :func:`require_own` does.
    """
    require_own(root)
    try:
        data = json.loads(marker(root).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    ready = data.pop("ready")
    return Cluster(root=root, **data), ready


def require_own(root: Path) -> None:
    """Raise ClusterError for a directory that somebody else may have put there."""
    if root.is_symlink() or (root.exists() and root.stat().st_uid != os.geteuid()):
        raise ClusterError(
            f"{root} is a link or belongs to another user\n"
            "  why: what lies there says which processes to end and which files to remove\n"
            "  fix: remove it, or give another --root",
            exit_status=2,
        )


def host_name() -> str:
    """This machine's short name, the only one under which slurmctld agrees to start."""
    return socket.gethostname().split(".")[0]


def hosts_file(cluster: Cluster) -> str:
    """/etc/hosts of every node: all nodes and the machine with the controller."""
    lines = ["127.0.0.1 localhost", f"{cluster.host_address} {host_name()}"]
    lines += [f"{cluster.node_address(node)} {node}" for node in cluster.node_names]
    return "\n".join(lines) + "\n"


def site_text(cluster: Cluster) -> str:
    """The launcher's site file for ``cluster``."""
    environment = json.dumps({"SLURM_CONF": str(cluster.slurm_conf)})  # JSON is YAML
    return (
        "# Written by tests/cluster/minislurm.py; removed when the cluster goes down.\n"
        "kind: slurm\n"
        f"partition: {DEFAULT_PARTITION}\n"
        f"environment: {environment}\n"
        f"max_memory_per_node_mb: {cluster.memory_mb}\n"
        f"cpus_per_node: {CPUS_PER_NODE}\n"
        f"nodes: {cluster.nodes}\n"
        "gpus_per_node: 2\n"
        "image: all-cpu  # the GPUs are device files that do nothing\n"
        "shared_directory: null\n"
    )
