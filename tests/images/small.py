"""Small real images for tests: the bare Debian of the engine's base archive."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from launcher.core.node_facts import architecture
from launcher.core.runtimes import Container
from tests.images import engine, provision

UNKNOWN_LOCK = "0" * 64  # these images hold no packages of ours, hence no lock


def unavailable(kind: str) -> str | None:
    """Why images of ``kind`` ("apptainer", "docker") cannot run here, or None: a reason to skip."""
    if os.geteuid() != 0:
        return "the test engine needs root"
    if not provision.base_archive().exists():
        return "no base archive: python -m tests.images.engine up"
    if kind == "apptainer":
        return None if provision.found_apptainer() else "Apptainer is not installed"
    up = engine.status(engine.DEFAULT_ROOT)["state"] == "up"
    return None if up else "no Docker engine: python -m tests.images.engine up"


def sif(folder: Path) -> Container:
    """Build the base archive into ``folder``/small.sif (about 70 MB, 5 s) and describe it."""
    path, program = folder / "small.sif", provision.found_apptainer()
    assert program is not None
    fast = "-comp zstd -Xcompression-level 1"
    source = f"docker-archive://{provision.base_archive()}"
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "APPTAINER_CACHEDIR": str(folder)}
    subprocess.run(
        [program, "-q", "build", "--mksquashfs-args", fast, str(path), source],
        env=env,
        check=True,
        timeout=300,
    )
    shutil.rmtree(folder / "cache", ignore_errors=True)
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    status = path.stat()
    return Container(
        "apptainer",
        str(path),
        "small",
        digest,
        UNKNOWN_LOCK,
        architecture(),
        size_bytes=status.st_size,
        mtime_ns=status.st_mtime_ns,
        program=program,
    )


def docker_image() -> Container:
    """Load the base archive into the engine of the default root and describe the image."""
    root = engine.DEFAULT_ROOT
    call = [engine.CLIENT, "load", "--quiet", "--input", str(provision.base_archive())]
    env = engine.environment(root)
    done = subprocess.run(call, env=env, check=True, capture_output=True, text=True, timeout=120)
    name = done.stdout.split(": ", 1)[1].strip()
    inspect = [engine.CLIENT, "image", "inspect", "--format", "{{.Id}}", name]
    done = subprocess.run(inspect, env=env, check=True, capture_output=True, text=True, timeout=30)
    image = done.stdout.strip()
    return Container(
        "docker",
        image,
        "small",
        image.removeprefix("sha256:"),
        UNKNOWN_LOCK,
        architecture(),
        program=engine.CLIENT,
        engine=engine.docker_host(root),
    )
