"""What a cluster says of its limits: read from it, never assumed.

How large an array may be, how many tasks a user may have queued, and how long
the controller remembers. Limits of accounts and QOS come from accounting, where
the cluster enforces them.
"""

from __future__ import annotations

import getpass
from dataclasses import dataclass

from launcher.sites import Site
from launcher.submit import parse
from launcher.submit.clients import Clients


@dataclass(frozen=True)
class Limits:
    """Limits for one user at one site; None: no limit that the cluster tells of."""

    version: str
    array_tasks: int | None
    """Tasks of one array: the highest index is one less."""
    queued_tasks: int | None
    """Tasks that may wait or run at the same time."""
    remembers_s: float
    """How long squeue can still show an ended job (MinJobAge)."""
    settles_s: float
    """After this long a request that was on its way has arrived or is lost (MessageTimeout)."""
    accounting: bool
    """Whether the cluster has a database of ended jobs."""

    @property
    def part_size(self) -> int | None:
        """Largest number of tasks that one sbatch may send."""
        return _least([self.array_tasks, self.queued_tasks])


def read(clients: Clients, site: Site) -> Limits | None:
    """Ask the cluster; None while it does not answer."""
    printed = clients.ask(["scontrol", "show", "config"])
    if printed is None:
        return None
    config = parse.key_values(printed)
    enforced = config.get("AccountingStorageEnforce", "none").lower()
    told = _accounts(clients, site) if any(w in enforced for w in ("limits", "safe")) else []
    own = [site.max_queued_tasks, parse.number(config.get("MaxJobCount", ""))]
    return Limits(
        version=config.get("SLURM_VERSION", "unknown"),
        array_tasks=parse.number(config.get("MaxArraySize", "")),
        queued_tasks=_least([*own, *told]),
        remembers_s=parse.number(config.get("MinJobAge", "")) or 0,
        settles_s=parse.number(config.get("MessageTimeout", "")) or 10,
        accounting=config.get("AccountingStorageType", "").endswith("/slurmdbd"),
    )


def _accounts(clients: Clients, site: Site) -> list[int | None]:
    """Limits on queued tasks of the user's associations and of the QOS that will be used.

    A database that does not answer tells of no limits; sbatch still enforces them.
    """
    show = ["sacctmgr", "--parsable2", "show"]
    wanted = "format=Account,Partition,DefaultQOS,MaxSubmit,GrpSubmit"
    own = [f"account={site.account}"] if site.account else []
    reply = clients.run([*show, "assoc", "where", f"user={getpass.getuser()}", *own, wanted], 10)
    rows = [
        row
        for row in (parse.table(reply.out) if reply.code == 0 else [])
        if row.get("partition", "") in ("", *site.partitions)
    ]
    names = {site.qos} if site.qos else {row.get("def qos", "") for row in rows} | {"normal"}
    reply = clients.run([*show, "qos", "format=Name,MaxSubmitPU,MaxSubmitPA,GrpSubmit"], 10)
    listed = parse.table(reply.out) if reply.code == 0 else []
    qos = [row for row in listed if row.get("name") in names]
    values = [row.get("maxsubmit") for row in rows] + [row.get("grpsubmit") for row in rows + qos]
    values += [row.get(key) for row in qos for key in ("maxsubmitpu", "maxsubmitpa")]
    return [parse.number(value or "") for value in values]


def _least(values: list[int | None]) -> int | None:
    return min((value for value in values if value), default=None)
