"""Starts the ranks of one node: ``python -m jobs.ranks N MODULE ARGUMENTS…``.

What torch.distributed.run does for a fixed number of nodes, and one thing that it
does not: a signal reaches every rank, and the exit code of the ranks comes back.
(torch.distributed.run dies of SIGUSR2, and turns the codes 85 and 86 into 1.)
Where the node stands among the others arrives in the variables of
:func:`jobs.network.rendezvous`.
"""

from __future__ import annotations

import os
import subprocess
import sys

from launcher.core import children
from launcher.core.errors import EXIT_REQUEUE, EXIT_SAVED
from launcher.core.job import die_with_parent


def environment(rank: int, ranks_per_node: int) -> dict[str, str]:
    """Variables of the rank with local number ``rank``: RANK, LOCAL_RANK, WORLD_SIZE …"""
    node, nodes = int(os.environ.get("NODE_RANK", "0")), int(os.environ.get("NNODES", "1"))
    return {
        **os.environ,
        "RANK": str(node * ranks_per_node + rank),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(ranks_per_node),
        "WORLD_SIZE": str(nodes * ranks_per_node),
    }


def main(argv: list[str]) -> int:
    """Start N processes, forward signals to them, return their common exit code."""
    count, module, *arguments = argv
    ranks = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            env=environment(rank, int(count)),
            preexec_fn=die_with_parent,
        )
        for rank in range(int(count))
    ]
    seen = children.forward_signals(ranks)
    return children.wait_for(ranks, (EXIT_REQUEUE, EXIT_SAVED), seen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
