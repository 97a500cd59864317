"""The way into a rented box: a key of its own, a list of known hosts of its own.

The key exists for rented boxes alone, so a host that keeps it opens nothing else. A box's host
key is taken at the first contact and never again: whoever answers in its place later is refused.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from launcher.core import box_facts
from launcher.core.errors import RdtlError, RemoteError
from launcher.providers.ledger import Ledger
from launcher.providers.wanted import Facts
from launcher.ssh import Connection

USER = "root"
PYTHON = (
    "command -v python3 >/dev/null || { apt-get update -q && "
    "DEBIAN_FRONTEND=noninteractive apt-get install -qy python3; } >&2"
)
"""CUDA's own images have none, and everything else that is done on a box needs one."""
HELLO_S = 60.0
ASKING_S = 300.0
"""A box that takes longer is none: it costs money while it hangs."""


def key(ledger: Ledger) -> Path:
    """The private key for rented boxes, made at first use."""
    path = ledger.root / "id_ed25519"
    if not path.exists():
        temporary = path.with_name(f"{path.name}.new")
        temporary.unlink(missing_ok=True)
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rdtl cloud", "-f"]
        done = subprocess.run([*words, str(temporary)], stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise RdtlError("RDTL-G018", "no ssh key could be made", where=str(path))
        public = temporary.with_name(f"{temporary.name}.pub")
        public.replace(path.with_name(f"{path.name}.pub"))
        temporary.replace(path)
    return path


def public_key(ledger: Ledger) -> str:
    """The line that a box must know."""
    path = key(ledger)
    return path.with_name(f"{path.name}.pub").read_text(encoding="ascii").strip()


def connection(
    ledger: Ledger, rental: str, box: int, address: tuple[str, int], *, alone: bool = False
) -> Connection:
    """How ssh reaches a box; its known hosts are those of this box alone."""
    host, port = address
    options = [
        f"IdentityFile={key(ledger)}",
        "IdentitiesOnly=yes",
        f"UserKnownHostsFile={ledger.known_hosts(rental, box)}",
        "GlobalKnownHostsFile=/dev/null",
        "StrictHostKeyChecking=accept-new",
        "PasswordAuthentication=no",
        "ForwardAgent=no",
        "ConnectTimeout=10",
    ]
    words = ["-F", "none", "-p", str(port), *(word for o in options for word in ("-o", o))]
    return Connection(f"{USER}@{host}", tuple(words), alone=alone)


def ssh_config(ledger: Ledger, reached: dict[str, tuple[int, tuple[str, int]]]) -> str:
    """Lines for ``ssh -F``: by rental, its box and address under the rental's name."""
    entries = []
    for name, (box, (host, port)) in reached.items():
        entries += [f"Host {name}", f"  HostName {host}", f"  Port {port}"]
        entries += [f"  UserKnownHostsFile {ledger.known_hosts(name, box)}"]
    common = [f"User {USER}", f"IdentityFile {key(ledger)}", "IdentitiesOnly yes"]
    common += ["GlobalKnownHostsFile /dev/null", "StrictHostKeyChecking yes"]
    return "\n".join([*entries, "Host *", *(f"  {line}" for line in common), ""])


def ask(connection: Connection, directory: str, address: str = "") -> Facts:
    """What the box is; RemoteError RDTL-S037, S038, B013 from ssh, B068 for other words."""
    connection.run(["sh", "-c", PYTHON], limit_s=ASKING_S)
    program = Path(box_facts.__file__).read_text(encoding="utf-8")
    command = ["python3", "-", directory, address]
    printed = connection.run(command, stdin=program, limit_s=ASKING_S)
    try:
        facts = json.loads(printed.strip().splitlines()[-1])
        pairs = tuple((str(name), float(memory)) for name, memory in facts.pop("gpus"))
        return Facts(gpus=pairs, **facts)
    except (ValueError, IndexError, TypeError, KeyError) as error:
        raise RemoteError(
            "RDTL-B068",
            "the box does not say what it is",
            where=f"{connection.host}: {printed[-200:]}",
            why="a program that starts at login may print in between",
            fix="choose another image (machine.image of the recipe)",
        ) from error


def answers(connection: Connection) -> str:
    """Empty when ssh gets in, else why not; a changed host key raises RemoteError RDTL-B013."""
    try:
        connection.run(["true"], limit_s=HELLO_S)
    except RdtlError as error:
        if error.problem.code == "RDTL-B013":
            raise
        return error.problem.where or str(error)
    return ""
