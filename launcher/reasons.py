"""Slurm's words in plain words: why a job waits, and how one ended.

Reason names are those of squeue's manual page, Slurm 20.11 to 25.x. A name that
is not listed here is shown as it is.
"""

from __future__ import annotations

WAITING = {
    "None": "the scheduler has not looked at it yet",
    "Priority": "others are ahead of it in the queue",
    "Resources": "it is next, and waits for nodes to become free",
    "BeginTime": "it may not start yet (after a requeue Slurm waits about two minutes)",
    "Dependency": "an earlier stage must end first",
    "DependencyNeverSatisfied": "an earlier stage failed, so this can never start",
    "JobArrayTaskLimit": "as many tasks of this array run as may run at once",
    "JobHeldUser": "you hold it; `scontrol release JOB` lets it go",
    "JobHeldAdmin": "an administrator holds it",
    "JobHoldMaxRequeue": "it was started again too often and is held",
    "Licenses": "it waits for a licence",
    "NodeDown": "a node that it needs is down",
    "PartitionDown": "the partition is closed: no job starts there now",
    "PartitionInactive": "the partition is closed: no job starts there now",
    "PartitionNodeLimit": "it asks for more nodes than the partition allows: it can never start",
    "PartitionTimeLimit": "it asks for more time than the partition allows: it can never start",
    "QOSNotAllowed": "this quality of service is not open to this account",
    "BadConstraints": "no node fits what it asks for: it can never start",
    "AccountNotAllowed": "this account may not use the partition",
    "InvalidAccount": "Slurm does not know the account",
    "InvalidQOS": "Slurm does not know the quality of service",
    "Reservation": "it waits for its reservation",
    "ReservationDeleted": "its reservation was deleted: it can never start",
    "Prolog": "the node is being made ready",
    "Cleaning": "its last run is being cleaned up",
    "JobLaunchFailure": "it could not be started; Slurm tries again",
    "NonZeroExitCode": "it ended with an error",
    "SystemFailure": "Slurm itself failed",
    "TimeLimit": "its time is over",
    "FrontEndDown": "no front-end node is up",
    "InactiveLimit": "it did nothing for too long",
    "DeadLine": "it cannot end before its deadline",
    "launch failed requeued held": "it could not be started and is held; look at the node's log",
    "ReqNodeNotAvail": "nodes that it needs are reserved, down or draining, often for maintenance",
    "BurstBufferResources": "it waits for burst-buffer space",
    "BurstBufferStageIn": "its files are being staged",
    "NodesNotAvail": "nodes that it needs are not available",
}

LIMITED = {
    "Jobs": "as many of your jobs run as may run at once",
    "SubmitJobs": "as many of your jobs wait as may wait",
    "Submit": "as many of your jobs wait as may wait",
    "GRES": "your GPU quota is used up",
    "CPU": "your CPU quota is used up",
    "Cpu": "your CPU quota is used up",
    "Node": "your node quota is used up",
    "Mem": "your memory quota is used up",
    "Memory": "your memory quota is used up",
    "Wall": "it asks for more time than is left to you",
    "Billing": "your share of the cluster is used up",
}
"""What a limit counts; the reason's name says whose limit: QOS…, Assoc…, …PerUser, …Account."""

ENDED = {
    "CANCELLED": "was cancelled",
    "TIMEOUT": "ran into its time limit",
    "DEADLINE": "ran into its deadline",
    "OUT_OF_MEMORY": "needed more memory than it asked for",
    "NODE_FAIL": "its node died",
    "BOOT_FAIL": "its node did not boot",
    "PREEMPTED": "had to make room for another job",
    "REVOKED": "was taken by another cluster of the federation",
    "FAILED": "failed before it could say why",
    "COMPLETED": "ended, but its completion marker is missing",
}


def waiting(reason: str) -> str:
    """Why a job waits, for a person; unknown reasons come back as Slurm wrote them."""
    name = reason.split(",")[0].strip()
    if name in WAITING:
        return WAITING[name]
    if name.startswith(("QOS", "Assoc", "MaxGRES", "MaxCpu", "MaxNode", "MaxMem", "MaxJobs")):
        for counted in sorted(LIMITED, key=len, reverse=True):
            if counted in name:
                return f"{LIMITED[counted]} ({name})"
    return reason


def never_starts(reason: str) -> bool:
    """Whether a waiting job with this reason can never start by itself."""
    return "can never start" in waiting(reason) or reason == "DependencyNeverSatisfied"


def ended(state: str) -> str:
    """How a job ended, for a person, from sacct's state (``CANCELLED by 1000`` among them)."""
    return ENDED.get(state.split()[0].rstrip("+"), f"ended as {state}")
