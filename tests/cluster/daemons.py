"""Starting and stopping the daemons of a cluster in the order that Slurm needs."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from collections.abc import Callable

from tests.cluster import lock, network, processes, slurmconf
from tests.cluster.layout import DEFAULT_PARTITION, Cluster, ClusterError, write_whole
from tests.cluster.processes import wait_until

START_SECONDS = 30.0  # for each step; a busy machine was seen to need a tenth of it
DRAIN_SECONDS = 10.0


def prepare(cluster: Cluster) -> None:
    """Write every file that the daemons read, below an existing ``cluster.root``."""
    root = cluster.root
    for name in ("etc", "log", "run", "state", "pid", "dev", *_spools(cluster)):
        (root / name).mkdir(parents=True)
    for index in range(slurmconf.GPUS_PER_NODE):
        os.mknod(root / "dev" / f"gpu{index}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    # Compute nodes let every user mount images; this machine itself may keep /dev/fuse to root.
    os.mknod(root / "dev" / "fuse", 0o666 | stat.S_IFCHR, os.makedev(10, 229))
    (root / "dev" / "fuse").chmod(0o666)
    etc = cluster.slurm_conf.parent
    write_whole(etc / "munge.key", os.urandom(512).hex(), mode=0o600)
    write_whole(etc / "slurm.conf", slurmconf.slurm_conf(cluster))
    write_whole(etc / "gres.conf", slurmconf.gres_conf(cluster))
    write_whole(etc / "cgroup.conf", slurmconf.CGROUP_CONF)
    if cluster.accounting:
        write_whole(etc / "slurmdbd.conf", slurmconf.slurmdbd_conf(cluster), mode=0o600)
        owner = pwd.getpwnam("mysql")
        for name in ("mysql", "mysock"):
            (root / name).mkdir()
            os.chown(root / name, owner.pw_uid, owner.pw_gid)


def _spools(cluster: Cluster) -> list[str]:
    return [f"spool/{node}" for node in cluster.node_names]


def run(cluster: Cluster, *argv: str, seconds: float = 20) -> subprocess.CompletedProcess[str]:
    """Run a Slurm client of this cluster in a clean environment; never raises for its status."""
    return lock.command(list(argv), cluster.environment(), seconds)


def start(cluster: Cluster) -> None:
    """Start everything and return once a first job step has run on all nodes."""
    _start_munge(cluster)
    if cluster.accounting:
        _start_database(cluster)
        _start_slurmdbd(cluster)
    _spawn(cluster, "slurmctld", ["slurmctld", "-D"])
    _wait(cluster, ["slurmctld"], lambda: run(cluster, "scontrol", "ping").returncode == 0)
    for node in cluster.node_names:
        _spawn_node(cluster, node)
    every_node = set(cluster.node_names)
    daemons = [f"slurmd-{node}" for node in cluster.node_names]
    _wait(cluster, daemons, lambda: idle_nodes(cluster) == every_node)
    _check_first_step(cluster)


def _start_munge(cluster: Cluster) -> None:
    root = cluster.root
    files = [
        f"--key-file={root}/etc/munge.key",
        f"--socket={cluster.munge_socket}",
        f"--pid-file={root}/pid/munged.pid",
        f"--seed-file={root}/state/munge.prng",
    ]
    # --force: /tmp above the socket is writable by all, which munge dislikes; the sticky bit
    # of /tmp and the mode of our own directory keep others out of it.
    _spawn(cluster, "munged", ["munged", "--foreground", "--force", *files])
    _wait(cluster, ["munged"], cluster.munge_socket.exists)


def _start_database(cluster: Cluster) -> None:
    data = ["--no-defaults", "--user=mysql", f"--datadir={cluster.root}/mysql"]
    made = run(
        cluster,
        "mariadb-install-db",
        *data,
        "--skip-test-db",
        "--auth-root-authentication-method=socket",
        seconds=60,
    )
    if made.returncode != 0:
        raise ClusterError(f"mariadb-install-db failed:\n{made.stdout[-500:]}{made.stderr[-500:]}")
    settings = [
        "--skip-networking",
        "--innodb-buffer-pool-size=64M",
        "--innodb-lock-wait-timeout=900",
        "--innodb-flush-log-at-trx-commit=0",
    ]
    socket = f"--socket={cluster.database_socket}"
    _spawn(cluster, "mariadbd", ["mariadbd", *data, socket, *settings])
    sql = (
        f"create database {slurmconf.DATABASE};"
        "create user slurm@localhost identified by 'slurm';"
        f"grant all on {slurmconf.DATABASE}.* to slurm@localhost"
    )
    client = ["mariadb", "--no-defaults", socket, "-e"]
    _wait(cluster, ["mariadbd"], lambda: run(cluster, *client, "select 1").returncode == 0)
    granted = run(cluster, *client, sql)
    if granted.returncode != 0:
        raise ClusterError(f"the database refused its set-up: {granted.stderr.strip()}")


def _start_slurmdbd(cluster: Cluster) -> None:
    env = {"MYSQL_UNIX_PORT": str(cluster.database_socket)}
    _spawn(cluster, "slurmdbd", ["slurmdbd", "-D"], env)
    list_clusters = ["sacctmgr", "--noheader", "show", "cluster"]
    _wait(cluster, ["slurmdbd"], lambda: run(cluster, *list_clusters).returncode == 0)
    # Before slurmctld starts: jobs that end earlier than the registration stay unrecorded.
    run(cluster, "sacctmgr", "-i", "-Q", "add", "cluster", slurmconf.CLUSTER_NAME)


def _spawn(
    cluster: Cluster, name: str, argv: list[str], extra: dict[str, str] | None = None
) -> None:
    log = cluster.logs / f"{name}.out"
    env = {**cluster.environment(), **(extra or {})}
    processes.start(name, argv, cluster.records, log, env)


def _wait(cluster: Cluster, names: list[str], answers: Callable[[], bool]) -> None:
    """Wait until the daemons answer; a daemon that ends early is reported with its last words."""
    records = processes.recorded(cluster.records)

    def ended() -> list[str]:
        return [name for name in names if not records[name].alive]

    wait_until(lambda: answers() or bool(ended()), START_SECONDS, f"answer of {', '.join(names)}")
    for name in ended():
        text = (cluster.logs / f"{name}.out").read_text(errors="replace")
        raise ClusterError(f"{name} ended at once; its last words:\n{text[-1000:].strip()}")


def idle_nodes(cluster: Cluster) -> set[str]:
    """Names of the nodes that are idle now."""
    return {node for node, state in node_states(cluster).items() if state == "idle"}


def node_states(cluster: Cluster) -> dict[str, str]:
    """State of each node in sinfo's words; empty when the controller does not answer."""
    done = run(cluster, "sinfo", "-h", "-N", "-p", DEFAULT_PARTITION, "-o", "%N %T", seconds=5)
    return dict(line.split() for line in done.stdout.splitlines())


def _check_first_step(cluster: Cluster) -> None:
    """One real step on all nodes: idle nodes alone do not prove that jobs start."""
    count = str(cluster.nodes)
    done = run(cluster, "srun", "--immediate=15", "-N", count, "-n", count, "hostname")
    if sorted(done.stdout.split()) != sorted(cluster.node_names):
        raise ClusterError(f"the first srun failed ({done.returncode}): {done.stderr.strip()}")


def kill(cluster: Cluster, name: str) -> None:
    """KILL one daemon, as a crash would."""
    processes.kill([processes.recorded(cluster.records)[name].pid])


def restart_controller(cluster: Cluster) -> None:
    """Start slurmctld again from its saved state; returns when it answers."""
    _spawn(cluster, "slurmctld", ["slurmctld", "-D"])
    _wait(cluster, ["slurmctld"], lambda: run(cluster, "scontrol", "ping").returncode == 0)


def restart_node(cluster: Cluster, node: str) -> None:
    """Start slurmd of a node that was killed; returns when the node takes jobs again."""
    _spawn_node(cluster, node)
    _wait(cluster, [f"slurmd-{node}"], lambda: node in idle_nodes(cluster))


def _spawn_node(cluster: Cluster, node: str) -> None:
    in_node = ["ip", "netns", "exec", cluster.namespace(node), "unshare", "--uts", "--"]
    fuse = f"if [ -e /dev/fuse ]; then mount --bind {cluster.root}/dev/fuse /dev/fuse; fi"
    script = f"hostname {node}; {fuse}; exec slurmd -D -N {node}"
    _spawn(cluster, f"slurmd-{node}", [*in_node, "sh", "-c", script])


def stop(cluster: Cluster) -> None:
    """Cancel all jobs, let them end, then stop every daemon; fine when some or all are gone."""
    records = processes.recorded(cluster.records)
    if "slurmctld" in records and records["slurmctld"].alive:
        _cancel_jobs(cluster)
    first = [records[name] for name in records if name.startswith("slurm") and name != "slurmdbd"]
    processes.stop(first)
    for node in cluster.node_names:
        kill_node(cluster, node)
    for name in ("slurmdbd", "mariadbd", "munged"):  # each is a client of the ones after it
        if name in records:
            processes.stop([records[name]])


def _cancel_jobs(cluster: Cluster) -> None:
    """No slurmstepd may outlive its slurmd; what does not end in time is killed with its node."""
    jobs = set(run(cluster, "squeue", "-h", "-o", "%F").stdout.split())
    if not jobs:
        return
    run(cluster, "scancel", "--full", *jobs)
    try:
        wait_until(
            lambda: not run(cluster, "squeue", "-h").stdout.strip(), DRAIN_SECONDS, "end of jobs"
        )
    except ClusterError as late:
        print(f"{late}; killing them", flush=True)


def kill_node(cluster: Cluster, node: str) -> int:
    """KILL every process of ``node`` (slurmd, slurmstepd, tasks), as a power cut would.

    Returns how many processes there were.
    """
    total = 0
    while pids := network.processes_in(cluster.namespace(node)):
        processes.kill(pids)
        total += len(pids)
    return total
