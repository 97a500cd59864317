"""``python -m jobs.host_probe ROOT NONCE INDEX ACTIVATE``: what a host can tell before a job.

Prints its facts as one line of JSON, then reads whom to try to reach, tries, and
prints whom it reached. Meanwhile it answers the probes of the others: a connection
counts only when the right host answers, since addresses like 172.17.0.1 exist on
many machines at once. Standard library only.
"""

from __future__ import annotations

import array
import fcntl
import json
import platform
import shutil
import socket
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.runtimes import activated

MARK = "RDTL "
"""Begins our lines; a login shell may print others."""
PACKAGES = ("torch", "deepspeed", "numpy", "nvidia-nccl-cu12", "nvidia-nccl-cu13")
SIOCGIFADDR = 0x8915
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


def gpus() -> list[dict[str, int]] | None:
    """Index, memory in use and total memory (MiB) of each GPU; None without nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["--query-gpu=index,memory.used,memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(
        ["nvidia-smi", *query], capture_output=True, text=True, check=False, timeout=60
    )
    names = ("index", "used_mb", "total_mb")
    rows = [line.split(",") for line in done.stdout.splitlines() if line.count(",") == 2]
    return [dict(zip(names, map(int, row), strict=True)) for row in rows]


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
        "gpus": gpus(),
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
