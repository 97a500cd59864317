"""What a test engine's builder is made of: a base archive, Apptainer, pip's settings."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from launcher.core import files
from tests.cluster.layout import REPOSITORY, ClusterError

SUITE = "bookworm"
APPTAINER_PREFIX = Path("/var/cache/rdtl/apptainer")  # readable by the tests' ordinary users
SYSTEM_CA = Path("/etc/ssl/certs/ca-certificates.crt")


def base_archive() -> Path:
    """Where the Debian base lies: a docker-archive, whole or absent."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return cache / "rdtl" / "test-base" / f"{SUITE}-{platform.machine()}.tar"


def make_base(client: list[str], env: dict[str, str], scratch: Path, lock: int) -> None:
    """Make :func:`base_archive`; ``client`` is the Docker client, ``env`` with its DOCKER_HOST.

    A minimal Debian with certificates, without device nodes: users cannot create
    them. Commands inherit ``lock``: an orphan of a killed program keeps it.
    """
    print(f"making the base archive {base_archive()} (once) …", flush=True)
    for left in base_archive().parent.glob(".*.part"):
        left.unlink()
    shutil.rmtree(scratch, ignore_errors=True)  # of an earlier attempt that was killed
    scratch.mkdir()
    root_filesystem, name = scratch / "base.tar", f"rdtl-base:{SUITE}"
    options = ["--variant=minbase", "--include=ca-certificates", "--skip=output/dev"]
    options.append("--dpkgopt=force-unsafe-io")
    mirror = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
    steps = [
        ["mmdebstrap", "-q", *options, SUITE, str(root_filesystem), mirror],
        [*client, "import", str(root_filesystem), name],
    ]
    with files.whole_file(base_archive()) as temporary, temporary.open("wb") as output:
        for step in [*steps, [*client, "save", name]]:
            done = subprocess.run(
                step,
                env={**env, "TMPDIR": str(scratch)},
                stdout=output if "save" in step else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                pass_fds=[lock],
            )
            if done.returncode:
                raise ClusterError(f"{step[0]} failed ({done.returncode}):\n{done.stderr[-1500:]}")
    root_filesystem.unlink()


def found_apptainer() -> str | None:
    """Apptainer of the PATH or of the tests' prefix, or None."""
    return shutil.which("apptainer") or shutil.which(f"{APPTAINER_PREFIX}/bin/apptainer")


def apptainer(lock: int) -> str:
    """Path of Apptainer, installed when there is none; without it only Docker can build."""
    if found := found_apptainer():
        return found
    script = REPOSITORY / "containers" / "install-apptainer.sh"
    done = subprocess.run(["sh", str(script), str(APPTAINER_PREFIX)], check=False, pass_fds=[lock])
    if done.returncode:
        print("no Apptainer: only Docker images can be built here", file=sys.stderr)
    return found_apptainer() or "apptainer"


def builder_text(client: str, docker_host: str, apptainer: str) -> str:
    """The builder file of this machine."""
    ca = Path(os.environ.get("PIP_CERT", SYSTEM_CA))
    settings = {
        "base": str(base_archive()),
        "docker": client,
        "docker_host": docker_host,
        "apptainer": apptainer,
        "compression": "zstd",
        "wheels": "download",
        "pip_config": next((str(path) for path in _pip_configs() if path.is_file()), None),
        "ca": str(ca) if ca.is_file() else None,
    }
    head = "# Written by tests/images/engine.py; removed when the engine goes down.\n"
    lines = [f"{key}: {json.dumps(value)}\n" for key, value in settings.items()]  # JSON is YAML
    return head + "".join(lines)


def _pip_configs() -> list[Path]:
    """Where pip's settings may be; a build takes one file as its secret: the first that exists."""
    named = os.environ.get("PIP_CONFIG_FILE")
    home = Path("~/.config/pip/pip.conf").expanduser()
    return [*([Path(named)] if named else []), Path("/etc/pip.conf"), home]
