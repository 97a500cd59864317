"""Packages of a lock as files, for builds that have no way to an index (``wheels: download``)."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from launcher.images.builder import Builder
from launcher.images.definition import Definition, Lock
from launcher.images.errors import build_failed
from launcher.images.tools import Redaction, pip_environment, run_logged

GLIBC = range(5, 37)  # manylinux_2_5 … 2_36: the base's glibc (Debian 12) is 2.36
OLD_NAMES = ("manylinux2014", "manylinux2010", "manylinux1", "linux")
MACHINE = {"amd64": "x86_64", "arm64": "aarch64"}


def platforms(architecture: str) -> list[str]:
    """pip's names of the platforms whose wheels run in the image."""
    machine = MACHINE[architecture]
    names = [f"manylinux_2_{minor}" for minor in GLIBC] + list(OLD_NAMES)
    return [f"{name}_{machine}" for name in names]


def download(
    definition: Definition,
    lock: Lock,
    builder: Builder,
    architecture: str,
    folder: Path,
    workspace: Path,
    say: Callable[[str], None],
) -> Path:
    """Directory ``folder/LOCK`` with every file of the lock, hashes checked by pip.

    Whole or absent (renamed last), so a second build with this lock downloads nothing.
    Raises RdtlError RDTL-C019, C028 or G009.
    """
    target = folder / f"{lock.sha256[:16]}-{architecture}"
    if target.is_dir():
        return target
    say(f"downloading {len(lock.packages())} packages")
    argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    argv += ["--progress-bar", "off", "--dest", str(workspace / "wheels")]
    argv += ["--requirement", str(lock.path), "--implementation", "cp"]
    argv += ["--python-version", definition.python]
    argv += [word for name in platforms(architecture) for word in ("--platform", name)]
    log = workspace / "download.log"
    status = run_logged(argv, pip_environment(builder), log, Redaction(builder), workspace)
    if status != 0:
        raise build_failed("pip download", status, log)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (workspace / "wheels").rename(target)
    except OSError:
        if not target.is_dir():  # another build with this lock was first
            raise
        shutil.rmtree(workspace / "wheels")
    return target
