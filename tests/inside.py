"""Programs of jobs as a node starts them: in the image, with this checkout as their code."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from launcher.core.errors import RdtlError
from launcher.core.node_facts import mount_facts
from launcher.core.runtimes import IMAGE_PYTHON, Bind, Container, Launch, inside, wrap
from launcher.images import builder
from launcher.images.resolve import resolve
from launcher.images.store import BuiltImage

ROOT = Path(__file__).parent.parent


@functools.cache
def image() -> BuiltImage:
    """The image that jobs run in; `.ci/run` builds it before the tests."""
    if shutil.which("apptainer") is None:
        pytest.skip("no apptainer here: sh containers/install-apptainer.sh PREFIX")
    try:
        return resolve("all-cpu", "apptainer", builder.load())
    except RdtlError as error:
        pytest.fail(f"the image of the jobs is missing or unfit\n{error}")


def container(*binds: Bind) -> Container:
    """The image as a plan names it, with what a job may see."""
    sif = image()
    return Container(
        "apptainer", sif.reference, sif.name, sif.sha256, sif.lock_sha256, sif.architecture,
        sif.size_bytes, sif.mtime_ns, binds=binds,
    )  # fmt: skip


def python(arguments: list[str], folder: Path, variables: Mapping[str, str]) -> Launch:
    """``python ARGUMENTS`` in the image, in ``folder``, the only place where it can write."""
    for name in ("home", "tmp", "numba"):
        (folder / "scratch" / name).mkdir(parents=True, exist_ok=True)
    visible = Bind(str(folder), str(folder), read_only=False), Bind(str(ROOT), str(ROOT))
    own = {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(folder / "scratch" / "numba")}
    return wrap(
        container(*visible),
        (IMAGE_PYTHON, *arguments),
        inside(os.environ, {**own, **variables}),
        os.environ,
        mount_facts("apptainer"),
        working_directory=str(folder),
        scratch=str(folder / "scratch"),
        tag="rdtl-test",
    )
