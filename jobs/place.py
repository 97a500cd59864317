"""Where a node stands among those of its task, and the port at which its ranks meet.

Standard library only.
"""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import dataclass

from jobs import requeue
from launcher.core import plan
from launcher.core.errors import RdtlError

PORTS_APART = 7919


@dataclass(frozen=True)
class Place:
    """Where this node task stands among the nodes of its task."""

    node: int
    nodes: int
    address: str
    port: int


def free_port(first: int) -> int:
    """The first port from ``first`` up that can be bound now; below the ephemeral range."""
    for port in range(first, 32768):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise RdtlError("RDTL-S007", f"no free port between {first} and 32767", fix="free some ports")


def find_place(stage: plan.Stage) -> Place:
    """Read rank and rendezvous from Slurm's environment; without Slurm this is node 0 of 1.

    The port comes from the job id and the round (a round that was given up may still hold
    its own), below the ephemeral range, so that all nodes know it without talking; node 0
    proves that it is free.
    """
    if "SLURM_JOB_ID" not in os.environ or stage.nodes == 1:
        seed = int(os.environ.get("SLURM_JOB_ID", os.getpid()))
        return Place(0, 1, "127.0.0.1", free_port(10000 + seed % 20000))
    node = int(os.environ["SLURM_NODEID"])
    command = ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]]
    hosts = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    number = int(os.environ["SLURM_JOB_ID"]) + PORTS_APART * requeue.restart_count()
    port = 10000 + number % 20000
    return checked(Place(node, stage.nodes, hosts[0], port))


def checked(place: Place) -> Place:
    """``place``, on node 0 only if its port is free here; RdtlError RDTL-S007 otherwise."""
    if place.node == 0 and free_port(place.port) != place.port:
        raise RdtlError(
            "RDTL-S007",
            f"the rendezvous port {place.port} is taken on {place.address}",
            why="the other nodes know no other port, so they would wait for ever",
            fix="submit again: the next attempt gets another port",
        )
    return place
