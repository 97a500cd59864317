"""How processes on several machines find each other: interfaces, and the rendezvous of ranks.

Standard library only.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.place import Place
from launcher.core import plan

SIOCGIFADDR = 0x8915
GLOO = "GLOO_SOCKET_IFNAME"


def interfaces() -> dict[str, dict[str, Any]]:
    """IPv4 address and speed (Mbit/s, 0 when unknown) of each interface but loopback."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = array.array("B", struct.pack("256s", name.encode()[:15]))
            try:
                fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
            except OSError:  # no IPv4 address
                continue
            address = socket.inet_ntoa(request.tobytes()[20:24])
            if not address.startswith("127."):
                found[name] = {"address": address, "speed": _speed(name)}
    return found


def _speed(name: str) -> int:
    try:
        return max(0, int(Path(f"/sys/class/net/{name}/speed").read_text()))
    except (OSError, ValueError):  # many virtual devices have none
        return 0


def active_ib() -> list[str]:
    """Names of InfiniBand or RoCE devices with an active port."""
    ports = Path("/sys/class/infiniband").glob("*/ports/*/state")
    return sorted({p.parts[-4] for p in ports if "ACTIVE" in p.read_text()})


def towards(address: str) -> str | None:
    """The interface by which this machine talks to ``address``; None when that is loopback.

    For an address of its own, the interface that carries it. Nothing is sent.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError:  # no such name, no route: the rendezvous will say it better
            return None
        own = probe.getsockname()[0]
    return next((name for name, one in interfaces().items() if one["address"] == own), None)


def variables(address: str, given: Mapping[str, str]) -> dict[str, str]:
    """The interface for gloo on the way to node 0, unless somebody has chosen one.

    By itself gloo takes the address that the own host name resolves to, often 127.0.1.1.
    NCCL is left alone: it looks for the fastest way by itself.
    """
    name = None if GLOO in given or GLOO in os.environ else towards(address)
    return {GLOO: name} if name else {}


def rendezvous(stage: plan.Stage, place: Place, local_rank: int) -> dict[str, str]:
    """Variables by which ranks find each other: the usual ones, and torchrun's (PET_*).

    With ``per="node"`` RANK is not set: torch.distributed.run or the user's own
    launcher starts the ranks of a node.
    """
    variables = {
        "MASTER_ADDR": place.address,
        "MASTER_PORT": str(place.port),
        "NODE_RANK": str(place.node),
        "NNODES": str(place.nodes),
        "PET_NNODES": str(place.nodes),
        "PET_NODE_RANK": str(place.node),
        "PET_NPROC_PER_NODE": str(stage.ranks_per_node),
        "PET_MASTER_ADDR": place.address,
        "PET_MASTER_PORT": str(place.port),
    }
    if stage.per == "gpu":
        variables |= {
            "RANK": str(place.node * stage.ranks_per_node + local_rank),
            "LOCAL_RANK": str(local_rank),
            "WORLD_SIZE": str(place.nodes * stage.ranks_per_node),
        }
    return variables
