"""The configuration files of a test cluster (Slurm 22.05 and later)."""

from __future__ import annotations

from tests.cluster.layout import (
    CPUS_PER_NODE,
    DEFAULT_PARTITION,
    SLURMD_PORT,
    Cluster,
    host_name,
)

CLUSTER_NAME = "mini"
DATABASE = "slurm_acct_db"
GPUS_PER_NODE = 2

# What differs from a production cluster, and why:
# - cred_expire: a requeued job waits cred_expire + 1 s before it may start again (default 121 s).
# - linuxproc, task/none: work without cgroups and systemd, but nothing enforces --mem, and a
#   signal reaches every descendant of a task instead of its top process only.
# - config_overrides: a small machine may play nodes with more CPUs and memory than it has.
# - KillWait, SlurmdTimeout, MessageTimeout: shorter than the defaults (30 s, 300 s, 10 s), to
#   test quickly. MaxJobCount: a hundred thousand array tasks may be queued.
_SLURM_CONF = """\
ClusterName={cluster_name}
SlurmctldHost={host}({address})
SlurmctldPort={port}
SlurmUser=root
AuthInfo=socket={munge},cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/pid/slurmctld.pid
SlurmdPidFile={root}/pid/slurmd-%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,sched_min_interval=100000,bf_interval=2,\
default_queue_depth=500,batch_sched_delay=0
MaxArraySize=10001
MaxJobCount=300000
MinJobAge=3600
ReturnToService=2
SlurmdTimeout=15
KillWait=5
MessageTimeout=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
JobCompType=jobcomp/filetxt
JobCompLoc={root}/log/jobcomp.txt
{accounting}
{nodes}
PartitionName={partition} Nodes=n[1-{last}] Default=YES MaxTime=INFINITE State=UP \
PriorityTier=10 PreemptMode=REQUEUE
PartitionName=low Nodes=n[1-{last}] MaxTime=INFINITE State=UP \
PriorityTier=1 PreemptMode=REQUEUE GraceTime=15
PartitionName=high Nodes=n[1-{last}] MaxTime=INFINITE State=UP \
PriorityTier=50 PreemptMode=OFF
"""

_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost={address}
AccountingStoragePort={port}
AccountingStoragePass={munge}
AccountingStorageTRES=gres/gpu"""

_SLURMDBD_CONF = """\
AuthInfo=socket={munge}
DbdHost={host}
DbdAddr={address}
DbdPort={port}
SlurmUser=root
PidFile={root}/pid/slurmdbd.pid
LogFile={root}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=slurm
StorageLoc={database}
"""


def database_port(cluster: Cluster) -> int:
    """Port of slurmdbd; the controller's is ``cluster.port``."""
    return cluster.port + 1


def slurm_conf(cluster: Cluster) -> str:
    """Complete slurm.conf."""
    nodes = [
        f"NodeName={node} NodeHostname={node} NodeAddr={cluster.node_address(node)} "
        f"Port={SLURMD_PORT} CPUs={CPUS_PER_NODE} RealMemory={cluster.memory_mb} "
        f"Gres=gpu:{GPUS_PER_NODE} State=UNKNOWN"
        for node in cluster.node_names
    ]
    accounting = "AccountingStorageType=accounting_storage/none"
    if cluster.accounting:
        accounting = _ACCOUNTING.format(
            address=cluster.host_address, port=database_port(cluster), munge=cluster.munge_socket
        )
    return _SLURM_CONF.format(
        cluster_name=CLUSTER_NAME,
        host=host_name(),
        address=cluster.host_address,
        port=cluster.port,
        munge=cluster.munge_socket,
        root=cluster.root,
        accounting=accounting,
        nodes="\n".join(nodes),
        partition=DEFAULT_PARTITION,
        last=cluster.nodes,
    )


def slurmdbd_conf(cluster: Cluster) -> str:
    """Complete slurmdbd.conf; the database listens on a socket in the cluster's directory only."""
    return _SLURMDBD_CONF.format(
        munge=cluster.munge_socket,
        host=host_name(),
        address=cluster.host_address,
        port=database_port(cluster),
        root=cluster.root,
        database=DATABASE,
    )


def gres_conf(cluster: Cluster) -> str:
    """The fake GPUs: device files with the numbers of /dev/null."""
    return f"Name=gpu File={cluster.root}/dev/gpu[0-{GPUS_PER_NODE - 1}]\n"


CGROUP_CONF = "CgroupPlugin=cgroup/v1\n"
