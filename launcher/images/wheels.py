"""Packages of a lock as files, for builds that have no way to an index (``wheels: download``)."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.core.node_facts import architecture
from launcher.images import tools

if TYPE_CHECKING:
    from launcher.images.order import Order

GLIBC = range(5, 37)  # manylinux_2_5 … 2_36: the base's glibc (Debian 12) is 2.36
OLD_NAMES = ("manylinux2014", "manylinux2010", "manylinux1", "linux")
MACHINE = {"amd64": "x86_64", "arm64": "aarch64"}


def platforms() -> list[str]:
    """pip's names of the platforms whose wheels run in an image of this architecture."""
    machine = MACHINE[architecture()]
    names = [f"manylinux_2_{minor}" for minor in GLIBC] + list(OLD_NAMES)
    return [f"{name}_{machine}" for name in names]


def download(order: Order, workspace: Path) -> Path:
    """Directory STORE/wheels/LOCK with every file of the lock, hashes checked by pip.

    Whole or absent (renamed last), so a second build with this lock downloads nothing.
    Raises RdtlError RDTL-C019, C028 or G009.
    """
    target = order.store.root / "wheels" / f"{order.lock.sha256[:16]}-{architecture()}"
    if target.is_dir():
        os.utime(target)  # `rdtl image clean` keeps what is used
        return target
    order.say(f"downloading {len(order.lock.packages())} packages")
    argv = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    argv += ["--progress-bar", "off", "--dest", str(workspace / "wheels")]
    argv += ["--requirement", str(order.lock.path), "--implementation", "cp"]
    argv += ["--python-version", order.definition.python]
    argv += [word for name in platforms() for word in ("--platform", name)]
    environment = tools.pip_environment(order.builder, order.definition.extra_index)
    order.run(argv, environment, workspace / "result" / "build.log", workspace)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        (workspace / "wheels").rename(target)
    except OSError:
        if not target.is_dir():  # another build with this lock was first
            raise
        shutil.rmtree(workspace / "wheels")
    return target
