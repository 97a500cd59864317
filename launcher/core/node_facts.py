"""What this machine can do with containers: read, not assumed.

``python -m launcher.core.node_facts`` prints the facts as one JSON line, so that
the launcher can ask a compute node, which often differs from the login node.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import stat
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

BUSY_MB = 1000
"""GPU memory in use that is somebody's work; drivers keep up to some hundred MB for themselves."""
CAP_SYS_RESOURCE = 24
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture() -> str:
    """This machine's processor as image tools call it: amd64, arm64."""
    return MACHINES.get(platform.machine(), platform.machine())


@dataclass(frozen=True)
class MountFacts:
    """What decides how Apptainer can open an image, as the current user sees it.

    ``can_raise_limits`` is CAP_SYS_RESOURCE, which Apptainer asks for as root.
    ``fuse`` means that /dev/fuse can be opened, ``setuid`` that Apptainer's
    starter is setuid root (the kernel then mounts images, no FUSE needed).
    """

    apptainer: str | None
    root: bool
    can_raise_limits: bool
    fuse: bool
    setuid: bool


@dataclass(frozen=True)
class NodeFacts(MountFacts):
    """All of one machine; ``docker`` means that a Docker engine answers this user."""

    architecture: str
    user_namespaces: bool
    subuid: bool
    docker: bool
    pyxis: bool


def mount_facts(apptainer: str) -> MountFacts:
    """Starts no process, so every task can afford it."""
    program = shutil.which(apptainer)
    return MountFacts(
        apptainer=program,
        root=os.geteuid() == 0,
        can_raise_limits=bool(_capabilities() >> CAP_SYS_RESOURCE & 1),
        fuse=os.access("/dev/fuse", os.R_OK | os.W_OK),
        setuid=program is not None and _has_setuid_starter(Path(program)),
    )


def probe(apptainer: str = "apptainer", docker: str = "docker") -> NodeFacts:
    """Look at this machine; asks Docker's engine and srun only when they are installed."""
    return NodeFacts(
        **asdict(mount_facts(apptainer)),
        architecture=architecture(),
        user_namespaces=_user_namespaces(),
        subuid=_has_subuid(),
        docker=_answers([docker, "version", "--format", "{{.Server.Version}}"]),
        pyxis=_mentions(["srun", "--help"], "container-image"),
    )


def gpus(limit_s: float = 20.0) -> list[dict[str, int]] | None:
    """Index, memory in use and total memory (MiB) of each GPU.

    None without an nvidia-smi that answers in this time. 0 where it says [N/A], as of a GPU that
    shares the memory of the machine.
    """
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["--query-gpu=index,memory.used,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            ["nvidia-smi", *query], capture_output=True, text=True, check=False, timeout=limit_s
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    names = ("index", "used_mb", "total_mb")
    rows = [line.split(",") for line in done.stdout.splitlines() if line.count(",") == 2]
    numbers = [[int(word) if word.strip().isdigit() else 0 for word in row] for row in rows]
    return [dict(zip(names, row, strict=True)) for row in numbers]


def _capabilities() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _user_namespaces() -> bool:
    for name, forbidden in (
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
    ):
        path = Path(name)
        if path.exists() and path.read_text(encoding="ascii").strip() == forbidden:
            return False
    return True


def _has_subuid() -> bool:
    import pwd

    try:
        names = {pwd.getpwuid(os.getuid()).pw_name, str(os.getuid())}
        lines = Path("/etc/subuid").read_text(encoding="utf-8").splitlines()
    except (KeyError, OSError):
        return False
    return any(line.split(":")[0] in names for line in lines)


def _has_setuid_starter(program: Path) -> bool:
    prefix = program.resolve().parent.parent
    places = (*prefix.glob("libexec/*/bin/starter-suid"), *prefix.glob("lib/**/bin/starter-suid"))
    return any(path.stat().st_mode & stat.S_ISUID and path.stat().st_uid == 0 for path in places)


def _answers(command: list[str]) -> bool:
    return _output(command) is not None


def _mentions(command: list[str], word: str) -> bool:
    return word in (_output(command) or "")


def _output(command: list[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None


if __name__ == "__main__":
    print(json.dumps(asdict(probe(*sys.argv[1:]))))
