"""Requests through a policy server, with the demo's network at its own size on one CPU thread.

A request's cost is the server's CPU time, which other programs on this machine do not
change. Measured are one and eight clients: one row a batch (nobody shares anything), and
batches of up to eight, fixed (answers that depend on nobody) and free. ``outside_ms`` is
what a request of a single client takes besides the network: both ends, wire and queue.
The bar: eight clients in free batches cost at most 0.6 of what each costs alone.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import harness
from launcher.schema_train import Model
from rdt.checkpoint import save
from rdt.model.policy_network import build, config_from_run
from rdt.serve import exact
from rdt.serve.connection import Connection
from rdt.spec.contract import LIBERO_VELOCITY
from tests.rdt import small_policy
from tests.serve import servers

SIZE, CLIENTS, ROUNDS, LIMIT = 128, 8, 3, 0.6
REQUESTS = 48
KINDS = {
    "alone": ["--rows", "1"],
    "fixed": ["--rows", "8"],
    "free": ["--rows", "8", "--batching", "free"],
}


def folder(root: Path) -> Path:
    """A policy of the demo's default size with random weights."""
    model = Model().model_dump()
    torch.manual_seed(0)
    network = build(config_from_run(model, SIZE, LIBERO_VELOCITY), LIBERO_VELOCITY, "benchmark")
    card = small_policy.card(LIBERO_VELOCITY, SIZE)
    card = type(card)(**{**vars(card), "horizon": model["horizon"]})
    save(root / "policy", network, card)
    return root / "policy"


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def asks(uri: str, client: int, count: int, out: list[tuple[float, float, np.ndarray]]) -> None:
    """``count`` requests one after another: seconds of the trip, of the network, the answer."""
    connection = Connection(uri, None, patience_s=30, deadline_s=60)
    connection.open()
    for query in range(count):
        seen = servers.observation(1 + 100 * client + query, size=SIZE)
        began = time.perf_counter()
        message = exact.to_wire(exact.Asked(seen, f"client-{client}", query))
        answer = connection.ask(message)
        seconds = time.perf_counter() - began
        out.append((seconds, answer["server_timing"]["infer_ms"] / 1000, answer["actions"]))
    connection.close()


def load(uri: str, pid: int, clients: int) -> dict[str, Any]:
    """What ``clients`` at once see, and what they cost the server."""
    answers: list[list[tuple[float, float, np.ndarray]]] = [[] for _ in range(clients)]
    threads = [
        threading.Thread(target=asks, args=(uri, i, REQUESTS // clients, answers[i]))
        for i in range(clients)
    ]
    before, began = cpu_seconds(pid), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, cpu = time.perf_counter() - began, cpu_seconds(pid) - before
    every = [answer for client in answers for answer in client]
    outside = [trip - network for trip, network, _ in every]
    return {
        "cpu_s": cpu / len(every),
        "per_s": len(every) / wall,
        "outside_ms": 1000 * statistics.median(outside),
        "actions": np.stack([actions for _, _, actions in every]),
    }


def measure(root: Path) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """Loads by kind of batching and number of clients, the kinds in turns."""
    policy = folder(root)
    found: dict[str, dict[int, list[dict[str, Any]]]] = {k: {1: [], CLIENTS: []} for k in KINDS}
    for number in range(ROUNDS):
        for kind, options in KINDS.items():
            with servers.program(policy, *options) as (uri, process):
                pid = process.pid
                for clients, loads in found[kind].items():
                    loads.append(load(uri, pid, clients))
            told = {n: round(1000 * loads[-1]["cpu_s"], 1) for n, loads in found[kind].items()}
            print(f"round {number + 1}, {kind}: CPU ms by clients {told}", file=sys.stderr)
    return found


def figures(loads: list[dict[str, Any]]) -> dict[str, float]:
    """Medians of a load."""
    names = ("cpu_s", "per_s", "outside_ms")
    return {name: round(statistics.median(one[name] for one in loads), 4) for name in names}


def main() -> None:
    """Measure and compare the answers."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        found = measure(Path(root))
    shared = {kind: by[CLIENTS][0]["actions"] for kind, by in found.items()}
    ours, base = ([one["cpu_s"] for one in found[kind][CLIENTS]] for kind in ("free", "alone"))
    ratio = statistics.median(ours) / statistics.median(base)
    harness.finish(
        {
            "benchmark": "serving",
            "ours": harness.spread(ours, "s"),
            "baseline": {**harness.spread(base, "s"), "what": "one request a batch"},
            "ratio": round(ratio, 3),
            "limit": LIMIT,
            "of_limit": round(ratio / LIMIT, 3),
            "clients": {
                kind: {str(n): figures(loads) for n, loads in by.items()}
                for kind, by in found.items()
            },
            "baseline_of_anchor": None,  # nobody has published such a figure
            "equal": bool(np.allclose(shared["free"], shared["alone"], atol=1e-3)),
        },
        ["torch", "websockets", "msgpack", "numpy"],
        started,
    )


if __name__ == "__main__":
    main()
