"""A real multi-node Slurm on one machine: ``python -m tests.cluster.minislurm up``.

Every node is a network namespace with its own host name, so tasks see n1, n2, …
with their own addresses as on a cluster. It lives in one private directory and
stands beside a Slurm that the machine may already have. Needs root and the
packages of tests/cluster/install.sh; nothing but the standard library.

Exit status: 0 done, 1 failed (for ``status``: not up), 2 this machine or these
arguments cannot do it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tests.cluster import layout, lifecycle
from tests.cluster.layout import ClusterError


def _root_argument(text: str) -> Path:
    path = Path(text).resolve()
    if len(str(path)) > 80:
        raise argparse.ArgumentTypeError("longer than 80 characters: socket paths would not fit")
    if any(character.isspace() or character in "%#," for character in str(path)):
        raise argparse.ArgumentTypeError("blanks and % # , do not fit into slurm.conf")
    return path


def _nodes_argument(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= layout.MAX_NODES:
        raise argparse.ArgumentTypeError(f"a number from 1 to {layout.MAX_NODES}, not {text}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster.minislurm",
        description="A real multi-node Slurm on one machine.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--root",
        type=_root_argument,
        default=layout.DEFAULT_ROOT,
        help="directory of the cluster (default: %(default)s)",
    )
    starting = verbs.add_parser("up", parents=[common], help="start it, or say that it is up")
    starting.add_argument("--nodes", type=_nodes_argument, default=3)
    starting.add_argument("--memory-mb", type=int, default=layout.MEMORY_PER_NODE_MB)
    starting.add_argument("--accounting", action="store_true", help="with slurmdbd and MariaDB")
    verbs.add_parser("down", parents=[common], help="stop it and remove every trace")
    showing = verbs.add_parser("status", parents=[common], help="say what runs")
    showing.add_argument("--json", action="store_true")
    killing = verbs.add_parser("kill-node", parents=[common], help="KILL everything on a node")
    killing.add_argument("name", help="for example n2")
    return parser


def _print_status(state: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print(json.dumps(state, indent=2, sort_keys=True))
    else:
        for key, value in state.items():
            text = " ".join(f"{k}={v}" for k, v in value.items()) if key == "nodes" else value
            if key != "daemons":
                print(f"{key:<11} {text}")
        for name, entry in state.get("daemons", {}).items():
            print(
                f"  {name:<12} {'alive' if entry['alive'] else 'gone':<6} {entry['memory_mb']} MB"
            )
    return 0 if state["state"] == "up" else 1


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.verb == "up":
            asked = arguments.nodes, arguments.accounting, arguments.memory_mb
            lifecycle.up(arguments.root, *asked)
        elif arguments.verb == "down":
            lifecycle.down(arguments.root)
        elif arguments.verb == "kill-node":
            lifecycle.kill_node(arguments.root, arguments.name)
        else:
            return _print_status(lifecycle.status(arguments.root), arguments.json)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
