"""What :mod:`rdt.sim.probe` found on this machine, kept for as long as nothing changes.

The look costs some CPU seconds and depends on the packages, the renderer and the processor, which
are told apart here without importing any of them. Only what was right is kept: whoever
mends a failure gets a new look. A home may be shared by nodes that differ, and that of a container
ends with its job, so a job keeps it in the run, too.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from launcher.core import files
from launcher.core.checks import Finding
from launcher.core.errors import RefusedError
from rdt.sim import backend, package

NVIDIA = Path("/proc/driver/nvidia")
LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/lib/*-linux-gnu", "/usr/local/lib")


def findings(*more: Path, watched: AbstractContextManager[None] | None = None) -> list[Finding]:
    """What :func:`rdt.sim.probe.probe` says, from an earlier look where one was right.

    ``more``: folders that keep it besides the user's cache. A look happens inside ``watched``.
    Raises as that.
    """
    backend.check_versions()
    places = [folder / _name() for folder in (_cache(), *more)]
    for place in places:
        if seen := _kept(place):
            return seen
    from rdt.sim.probe import probe

    with watched or contextlib.nullcontext():
        found = probe()
    if all(finding.severity == "ok" for finding in found):
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
        for place in places:
            with contextlib.suppress(OSError):  # a home that is full or read only: looked at again
                place.parent.mkdir(parents=True, exist_ok=True)
                files.write_json(place, {"at": at, "findings": [one.to_dict() for one in found]})
    return found


def require_published_stack(
    *more: Path, watched: AbstractContextManager[None] | None = None
) -> list[Finding]:
    """What :func:`findings` found, when all is well.

    Raises RefusedError RDTL-E001 for another floor, RDTL-E002 for a bowl that slid, and what
    :func:`findings` raises.
    """
    found = findings(*more, watched=watched)
    for finding in found:
        if finding.severity == "error":
            raise RefusedError(
                finding.code, finding.what, where=finding.where, why=finding.why, fix=finding.fix
            )
    return found


def _kept(place: Path) -> list[Finding]:
    """What an earlier look found; nothing where there was none, or no copy that can be read."""
    try:
        kept = files.read_json(place)
        seen = [Finding(**finding) for finding in kept["findings"]]
        return [replace(one, what=f"{one.what} (seen {kept['at']})") for one in seen]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _cache() -> Path:
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(user).expanduser() / "rdtl" / "probe"


def _name() -> str:
    digest = hashlib.sha256(json.dumps(_conditions(), sort_keys=True).encode()).hexdigest()
    return f"{digest[:16]}.json"


def _conditions() -> dict[str, Any]:
    """Everything that the pictures and the settled scene depend on."""
    libero = package.find()
    return {
        "versions": backend.versions(),
        "installed": [_installed(name) for name in backend.REQUIRED],
        "libero": str(libero.root),
        "renderer": os.environ.get("MUJOCO_GL"),
        "libraries": sorted(_libraries()),
        "driver": _driver(),
        "processor": _processor(),
        "probe": files.sha256(Path(__file__).with_name("probe.py")),  # each run has a copy
    }


def _installed(name: str) -> list[Any]:
    """The file that an installation writes: installed again, it is another one."""
    try:
        record = metadata.distribution(name).locate_file("")
        found = sorted(Path(str(record)).glob(f"{name.replace('-', '_')}-*.dist-info/RECORD"))
        return [_file(path) for path in found]
    except metadata.PackageNotFoundError:
        return []


def _libraries() -> list[Any]:
    """The software renderer, by name, size and time of its files."""
    named = [Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if folder]
    folders = [*named, *(place for text in LIBRARIES for place in Path("/").glob(text[1:]))]
    return [
        _file(path) for folder in folders for path in folder.glob("libOSMesa.so*") if path.exists()
    ]


def _driver() -> list[str]:
    """Of the GPUs that EGL draws with: its version, and which they are."""
    if os.environ.get("MUJOCO_GL") != "egl":
        return []
    texts = [NVIDIA / "version", *sorted(NVIDIA.glob("gpus/*/information"))]
    return [path.read_text(encoding="utf-8") for path in texts if path.is_file()]


def _file(path: Path) -> list[Any]:
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]


def _processor() -> str:
    """The renderer compiles for the processor that it finds."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.startswith("model name")), "")
