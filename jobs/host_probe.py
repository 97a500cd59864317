"""``python -m jobs.host_probe ROOT NONCE INDEX ACTIVATE``: what a host can tell before a job.

Prints its facts as one line of JSON, then reads whom to try to reach, tries, and
prints whom it reached. Meanwhile it answers the probes of the others: a connection
counts only when the right host answers, since addresses like 172.17.0.1 exist on
many machines at once. Standard library only.
"""

from __future__ import annotations

import json
import platform
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jobs.network import active_ib, interfaces
from launcher.core import files
from launcher.core.node_facts import gpus
from launcher.core.runtimes import activated

MARK = "RDTL "
"""Begins our lines; a login shell may print others."""
PACKAGES = ("torch", "deepspeed", "numpy", "nvidia-nccl-cu12", "nvidia-nccl-cu13")
CONNECT_S = 3.0
VERSIONS = """
import importlib.metadata, json, platform, sys
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found[name] = "missing"
print(json.dumps(found))
"""


def versions(activate: str) -> dict[str, str]:
    """Versions in the environment of the jobs, from the metadata of its packages."""
    python = "python" if activate else sys.executable
    argv = activated((python, "-P", "-c", VERSIONS, *PACKAGES), activate)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"python": f"does not start: {done.stderr.strip()[-200:]}"}
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def facts(root: Path, nonce: str, index: int, port: int, activate: str) -> dict[str, Any]:
    """Everything that the launcher judges; leaves a file in ``root`` that it must find there."""
    files.publish_once(root / f"{nonce}.{index}.json", {"host": platform.node()})
    return {
        "host": platform.node(),
        "sees": (root / f"{nonce}.json").exists(),
        "versions": versions(activate),
        "gpus": gpus(60.0),  # a driver that nothing holds open takes its time
        "interfaces": interfaces(),
        "ib": active_ib(),
        "port": port,
    }


def answer(listener: socket.socket, name: bytes) -> None:
    """Tell everybody who connects who we are."""
    while True:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(name)


def reaches(target: dict[str, Any]) -> bool:
    """Whether the host ``name`` answers at ``address``, ``port``."""
    try:
        with socket.create_connection((target["address"], target["port"]), CONNECT_S) as peer:
            said = peer.recv(200)
            return said == str(target["name"]).encode()
    except OSError:
        return False


def main(root: str, nonce: str, index: str, activate: str) -> None:
    """Two lines of answers, one line of questions in between."""
    listener = socket.create_server(("", 0), backlog=64)
    name = f"{nonce}.{index}"
    threading.Thread(target=answer, args=(listener, name.encode()), daemon=True).start()
    told = facts(Path(root), nonce, int(index), listener.getsockname()[1], activate)
    print(MARK + json.dumps(told), flush=True)
    targets = json.loads(sys.stdin.readline() or "[]")
    with ThreadPoolExecutor(max_workers=32) as pool:
        reached = list(pool.map(reaches, targets))
    print(MARK + json.dumps(reached), flush=True)
    sys.stdin.read()  # the others may still be asking us


if __name__ == "__main__":
    main(*sys.argv[1:])
