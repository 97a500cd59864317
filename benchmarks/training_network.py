"""Bytes that a training step sends by the interface of each node, beside what a ring sends.

Nodes are network namespaces with an interface each (root and iproute2), one rank a node, our
whole loop with a network of about four million parameters. A ring moves 2 (N - 1) / N times
the bytes of the gradients from each of N nodes. ``python -m benchmarks.training_network``
prints the figures.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import training_runs
from tests.cluster import layout, network
from tests.cluster.layout import Cluster
from tests.cluster.lock import exclusive

CASES = ((2, 0, "fp32"), (4, 0, "fp32"), (2, 1, "fp32"), (2, 1, "bf16"))
"""Nodes, ZeRO stage, type of the weights."""
MODEL = {"hidden": 256, "depth": 4, "heads": 4}
STEPS, FIRST, LAST = 8, 2, 7
BYTES = {"fp32": 4, "bf16": 2}


@contextmanager
def nodes(count: int) -> Iterator[Cluster]:
    """Namespaces n1, n2, … joined by a switch."""
    with tempfile.TemporaryDirectory(prefix="rdtl-bytes-") as folder:
        root = Path(folder)
        with exclusive():
            prefix, port = network.choose()
            cluster = Cluster(root, count, False, prefix, port)
            layout.save(cluster, ready=False)
            network.create(cluster)
        try:
            yield cluster
        finally:
            network.remove(root)


def measure(folder: Path, count: int, stage: int, dtype: str) -> dict[str, Any]:
    """Figures of one training on ``count`` nodes."""
    run = folder / f"{count}-{stage}-{dtype}"
    run.mkdir()
    train = {"steps": STEPS, "nodes": count, "ranks_per_node": 1, "micro_batch": 1,
             "effective_batch": count, "noise_draws": 1, "warmup_steps": 0, "log_every": 1,
             "zero_stage": stage, "dtype": dtype}  # fmt: skip
    training_runs.prepare(run, MODEL, train)
    with nodes(count) as cluster:
        first, port = cluster.node_address(cluster.node_names[0]), training_runs.free_port()
        started = []
        for node, name in enumerate(cluster.node_names):
            argv = training_runs.start(
                "training_ours", run, node=node, nodes=count, address=first, port=port
            )
            inside = ["ip", "netns", "exec", cluster.namespace(name), *argv]
            started.append(training_runs.popen(inside))
        training_runs.finished(started)
    left = [training_runs.found(run, node) for node in range(count)]
    sent = [(one["marks"][LAST].sent - one["marks"][FIRST].sent) / (LAST - FIRST) for one in left]
    gradients = BYTES[dtype] * left[0]["parameters"]
    ring = 2 * (count - 1) / count * gradients
    return {
        "nodes": count,
        "zero_stage": stage,
        "dtype": dtype,
        "gradients_mb": round(gradients / 1e6, 3),
        "ring_mb": round(ring / 1e6, 3),
        "sent_mb": [round(one / 1e6, 3) for one in sent],
        "of_ring": round(sum(sent) / count / ring, 4),
    }


def compare(folder: Path) -> list[dict[str, Any]]:
    """All cases."""
    found = []
    for case in CASES:
        found.append(measure(folder, *case))
        print(f"bytes: {found[-1]}", file=sys.stderr)
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(compare(Path(name))))
